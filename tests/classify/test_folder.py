"""A folder is replaced at one instant: whenever the process is killed, the old one or the new one is there, whole."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import stat
import sys

import pytest

from classify.errors import HeadError, RunError
from classify.heads.persistence import load_head, save_head
from classify.runs.folder import check_free, new_folder
from features_store.atomic import atomic_folder
from features_store.errors import DiskSpaceError


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
def test_killed_at_many_instants(tmp_path, platform) -> None:
    """With the system's exchange a reader sees a run at all times; without it, from the next start on."""
    place = tmp_path / "run"
    instants = 0
    for n in range(1, 400, 4):  # every instant is tried where the folder is made: tests of features_store.atomic
        if not place.exists():
            place.mkdir()
            (place / "report.json").write_text('{"text": "old"}')
        ended = replaced_until(place, n, platform)
        if platform == "linux":
            assert json.loads((place / "report.json").read_text())["text"] in ("old", "new")
        with pytest.raises(ValueError, match="enough"), atomic_folder(place, force=True):
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
    assert instants > 5
    assert ended


@pytest.mark.parametrize("name", ["notes.txt", "inner/report.json"])
def test_what_the_user_put_into_a_run_is_not_replaced_with_it(tmp_path, name) -> None:
    for part in ("report.json", "seeds.json", "plots/curve.svg", ".DS_Store", name):
        (tmp_path / "run" / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / part).write_text("{}")
    words = f"{name.partition('/')[0]} is no part of the run"
    with pytest.raises(RunError, match=words), new_folder(tmp_path / "run", force=True):
        pytest.fail("it would be lost")
    assert (tmp_path / "run" / name).exists()


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


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_full_disk_is_one_sentence(polarity_run, tmp_path) -> None:
    """Where the arrays of a head do not fit, nothing is left, and the error is the disk's."""
    head = load_head(polarity_run.folder / "model")
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            with new_folder(tmp_path / "run") as folder:
                save_head(head, folder / "model")
        except DiskSpaceError:
            os._exit(7)
        except BaseException:
            os._exit(8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not bind")
def test_what_may_not_be_read_is_not_called_damaged(polarity_run, tmp_path) -> None:
    folder = shutil.copytree(polarity_run.folder / "model", tmp_path / "model")
    (folder / "model.safetensors").chmod(0)
    with pytest.raises(HeadError, match="Permission denied") as caught:
        load_head(folder)
    assert "damaged" not in str(caught.value)
