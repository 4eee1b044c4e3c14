"""A folder is replaced at one instant: whenever the process is killed, the old one or the new one is there, whole."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys

import pytest

from classify.folder import whole_folder
from classify.runs import check_free, new_folder


def replaced_until(place, n: int, platform: str) -> bool:
    """Replace a run in a child that is killed at the n-th thing that it asks of the system; tell whether it ended."""
    pid = os.fork()
    if pid == 0:
        sys.platform, seen = platform, 0

        def count(event: str, args: object) -> None:
            nonlocal seen
            if event.startswith(("os.", "shutil.", "open", "ctypes.")):
                seen += 1
                if seen == n:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        with new_folder(place, force=True) as folder:
            (folder / "report.json").write_text('{"text": "new"}')
            (folder / "model").mkdir()
            (folder / "model" / "head.json").write_text("{}")
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_killed_at_every_instant(tmp_path, platform) -> None:
    """With the system's exchange a reader sees a run at all times; without it, from the next start on."""
    place = tmp_path / "run"
    instants = 0
    for n in range(1, 200):
        if not place.exists():
            place.mkdir()
            (place / "report.json").write_text('{"text": "old"}')
        ended = replaced_until(place, n, platform)
        if platform == "linux":
            assert json.loads((place / "report.json").read_text())["text"] in ("old", "new")
        with pytest.raises(ValueError, match="enough"), whole_folder(place, what="it", check=lambda: None):
            raise ValueError("enough")  # the next start
        found = json.loads((place / "report.json").read_text())["text"]
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
        assert (found == "new") == (place / "model" / "head.json").exists()
        if ended:
            assert found == "new"
            break
        instants += 1
        (place / "report.json").write_text('{"text": "old"}')
        if (place / "model").exists():
            (place / "model" / "head.json").unlink()
            (place / "model").rmdir()
    assert instants > 10
    assert ended


def test_what_a_living_process_writes_stays(tmp_path) -> None:
    with new_folder(tmp_path / "run") as folder:
        check_free(tmp_path / "run", force=False)
        assert folder.is_dir()
        (folder / "report.json").write_text("{}")


def test_permissions_follow_the_umask(polarity_run) -> None:
    """Whoever may read a run may read its model."""
    mask = os.umask(0o022)
    os.umask(mask)
    for path in (polarity_run.folder, polarity_run.folder / "model"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o777 & ~mask
    for path in (polarity_run.folder / "model").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
