"""Faults of one file are rows with a reason; faults of the machine stop the run; too many failures are no success."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract import pipeline
from extract.corpora import Dataset
from extract.errors import HubError, MachineError
from extract.inputs import files as sources
from extract.inputs.files import Files
from extract.settings import RunSettings
from features_store import DiskSpaceError, Index, MismatchError, Status, open_store
from features_store.writer import allowed_failures, failures_file, read_failures

CommandLine = Callable[..., tuple[int, str, str]]
BROKEN = Path("/proc/self/mem")  # a regular file whose first byte cannot be read: EIO, without any mock


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PAUSE", 0.0)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Forty small pictures, each of its own grey, in two classes."""
    root = tmp_path / "pictures"
    for at in range(40):
        path = root / ("dark" if at < 20 else "light") / f"{at:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), at * 6).save(path)
    return root


def run(command_line: CommandLine, root: Path, *more: object) -> tuple[int, str, str]:
    store = root.parent / "store"
    return command_line("run", "folder", "--data", root, "--store", store, "--encoders", "lowlevel", *more)


def block_of(root: Path):
    return open_store(root.parent / "store").blocks["lowlevel.features"]


def status_at(root: Path, name: str) -> Status:
    store = open_store(root.parent / "store")
    return Status(int(store.blocks["lowlevel.features"].status[store.ids.tolist().index(name), 0]))


def replaced(path: Path) -> Path:
    path.unlink()
    return path


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(20 << 30)


# What stands in the place of a picture; the state of its row, and a word of its reason.
STRANGE = {
    "fifo": (os.mkfifo, Status.MISSING, "named pipe"),
    "device": (lambda path: path.symlink_to("/dev/zero"), Status.MISSING, "device"),
    "folder": (lambda path: path.mkdir(), Status.MISSING, "folder"),
    "loop": (make_loop, Status.MISSING, "symbolic links"),
    "nothing": (lambda path: path.symlink_to("nowhere.png"), Status.MISSING, "No such file"),
    "below a file": (lambda path: path.symlink_to("01.png/x.png"), Status.MISSING, "Not a directory"),
    "holes": (make_sparse, Status.TOO_LARGE, "at most 67108864 are read"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes and devices of Unix")
def test_what_is_no_regular_file_is_a_row_with_a_reason(pictures: Path, toy, tmp_path: Path) -> None:
    """Nothing is waited for or read: not a pipe, not a device, not twenty gigabytes of holes. Links are followed."""
    names = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    for (make, _, _), name in zip(STRANGE.values(), names, strict=False):
        make(replaced(pictures / name))
    linked = replaced(pictures / names[-1])
    linked.symlink_to(pictures / names[20])
    reading = Dataset(Index(np.array(names)), Files(pictures, np.array(names)))
    settings = RunSettings(device="cpu", batch_size=4, max_failed="7")
    summary = pipeline.run(reading, [toy], tmp_path / "store", settings)
    block = open_store(tmp_path / "store").blocks["toy.hash"]
    assert block.sealed
    reasons = read_failures(block.path)
    for (_, status, words), name, found in zip(STRANGE.values(), names, block.status[:, 0].tolist(), strict=False):
        assert found == status, name
        assert words in reasons[name, status.reason]
    assert (block.status[len(STRANGE) :, 0] == Status.WRITTEN).all()
    assert np.array_equal(block.vectors[-1], block.vectors[20])
    assert not summary.too_many_failed


def test_a_name_that_no_file_can_have_is_a_row() -> None:
    for name in ("a\0b.png", "x" * 300 + ".png"):
        with pytest.raises(sources.RefusedImageError) as refused:
            Files(Path("/tmp"), np.array([name])).read(0)
        assert refused.value.status == Status.MISSING


@pytest.mark.skipif(not BROKEN.exists(), reason="a file that cannot be read, by Linux")
def test_a_fault_of_the_disk_stops_the_run_and_it_goes_on_when_mended(pictures, command_line) -> None:
    good = (pictures / "light" / "25.png").read_bytes()
    replaced(pictures / "light" / "25.png").symlink_to(BROKEN)
    code, _, err = run(command_line, pictures)
    assert code == 1
    assert err.count("error: ") == 1
    assert "25.png cannot be read: Input/output error (3 attempts)" in err
    assert "--skip-unreadable" in err
    assert not block_of(pictures).sealed
    assert status_at(pictures, "light/25.png") == Status.PENDING
    replaced(pictures / "light" / "25.png").write_bytes(good)
    assert run(command_line, pictures)[0] == 0
    assert block_of(pictures).sealed


@pytest.mark.skipif(not BROKEN.exists(), reason="a file that cannot be read, by Linux")
def test_unreadable_files_are_rows_only_when_asked(pictures, command_line) -> None:
    replaced(pictures / "light" / "25.png").symlink_to(BROKEN)
    assert command_line("check", "folder", "--data", pictures)[0] == 1
    code, out, _ = run(command_line, pictures, "--skip-unreadable")
    assert code == 0
    assert "missing: light/25.png (unreadable: Input/output error)" in out
    assert "--retry-failed" in out
    assert status_at(pictures, "light/25.png") == Status.MISSING


FEW_FILES = """
import resource, sys
from pathlib import Path
import numpy as np
from extract.inputs import files as sources
sources.PAUSE = 0.0
names = np.array(["a.png"])
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    sources.Files(Path(sys.argv[1]), names).read(0)
except sources.UnreadableError as error:
    print(error)
"""


def test_too_many_open_files_are_no_property_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    done = subprocess.run([sys.executable, "-c", FEW_FILES, tmp_path], capture_output=True, text=True, check=True)
    assert "Too many open files" in done.stdout
    assert "ulimit -n" in done.stdout


def test_too_many_failures_are_unfinished_and_nothing_is_sealed(pictures, command_line) -> None:
    """Three of forty are above 5%; the same command says so again, and --retry-failed mends it."""
    kept = {}
    for at in (1, 2, 3):
        path = pictures / "dark" / f"{at:02}.png"
        kept[path] = path.read_bytes()
        path.write_bytes(b"<html>")
    code, out, _ = run(command_line, pictures)
    assert code == 3
    assert "3 images failed and at most 2 may" in out
    assert not block_of(pictures).sealed
    code, out, _ = run(command_line, pictures)
    assert code == 3
    assert "--retry-failed" in out
    for path, data in kept.items():
        path.write_bytes(data)
    code, out, _ = run(command_line, pictures, "--retry-failed", "--json")
    assert code == 0
    assert json.loads(out)["n_failed"] == 0
    assert block_of(pictures).sealed
    assert not failures_file(block_of(pictures).path).exists()


@pytest.mark.parametrize("limit", ["3", "8%", "0.08"])
def test_failures_are_accepted_by_share_or_number(pictures, command_line, limit) -> None:
    for at in (1, 2, 3):
        (pictures / "dark" / f"{at:02}.png").write_bytes(b"<html>")
    assert run(command_line, pictures, "--max-failed", limit)[0] == 0
    assert block_of(pictures).sealed
    code, out, _ = run(command_line, pictures)  # what was accepted and sealed is not open again
    assert code == 0
    assert "nothing was left to do" in out
    assert "3 of the images failed" in out
    assert "stay open" not in out
    assert block_of(pictures).sealed


def test_a_page_that_cannot_be_written_is_refused_before_any_image_is_read(pictures, command_line) -> None:
    (pictures / "file").write_text("x")
    code, out, err = command_line("check", "folder", "--data", pictures, "--page", pictures / "file" / "page.html")
    assert code == 2
    assert out == ""
    assert "choose another place" in err


@pytest.mark.parametrize("text", ["many", "-1", "101%", "1.5", "nan", "", "5 %%", "1e3"])
def test_a_wrong_limit_is_one_sentence(pictures, command_line, text) -> None:
    code, _, err = run(command_line, pictures, f"--max-failed={text}")
    assert code == 2
    assert "give a share such as 5% or 0.05, or a number of images" in err
    assert not (pictures.parent / "store").exists()
    with pytest.raises(MismatchError):
        allowed_failures(text, 0)


def test_nothing_that_could_be_read_is_no_success(tmp_path: Path, command_line) -> None:
    """All broken, or a table of paths that are not there: neither `run` nor `check` ends with 0."""
    root = tmp_path / "corpus"
    for name in ("a/1.jpg", "b/2.jpg"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(b"<html>404</html>")
    listed = tmp_path / "listed"
    listed.mkdir()
    (listed / "images.txt").write_text("gone/1.jpg\tx\ngone/2.jpg\ty\n")
    for corpus, data in (("folder", root), ("list", listed)):
        store = tmp_path / f"store-{corpus}"
        code, out, _ = command_line("run", corpus, "--data", data, "--store", store, "--encoders", "lowlevel")
        assert code == 3, out
        code, out, err = command_line("check", corpus, "--data", data, "--json")
        assert code == 3, err
        reasons = json.loads(out)["reasons"]
        assert len(reasons) == 2
        assert all(reasons.values())


def test_reasons_are_kept_beside_the_block_and_may_be_lost(pictures, command_line, capsys) -> None:
    """`info --failed` shows the decoder's words; without the file, or with a stranger's, it shows the state alone."""
    from features_store.summary import as_text, summarise

    (pictures / "dark" / "01.png").write_bytes(b"<html>")
    assert run(command_line, pictures)[0] == 0
    path = block_of(pictures).path
    file = failures_file(path)
    assert file.name == "lowlevel.features.failures.csv"
    (row,) = csv.DictReader(io.StringIO(file.read_text()))
    assert (row["id"], row["status"]) == ("dark/01.png", "undecodable")
    assert "cannot identify image file" in row["reason"]
    assert "0x" not in row["reason"]

    def shown() -> str:
        return as_text(summarise(open_store(pictures.parent / "store")), all_failures=True)

    assert f"undecodable: dark/01.png ({row['reason']})" in shown()
    run(command_line, pictures)  # nothing to do; the reason stays
    assert f"({row['reason']})" in shown()
    file.write_text(file.read_text().replace("cannot", "\x1b[2Jcannot"))
    assert "\x1b" not in shown()
    for text in ("", "id,status\n", 'id,status,reason\n"', "id,status,reason\ndark/01.png,missing,no\n"):
        file.write_text(text)
        assert "undecodable: dark/01.png\n" in shown() + "\n"
    file.unlink()
    os.mkfifo(file)
    assert "undecodable: dark/01.png\n" in shown() + "\n"


HUNGRY = """
import resource, sys
import numpy as np
from extract.inputs.images import make_decoder
from pathlib import Path
decode = make_decoder(sys.argv[2])
data = Path(sys.argv[1]).read_bytes()
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (48 << 20), now + (48 << 20)))
try:
    decode(data)
except MemoryError:
    print("memory")
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of a process, by Linux")
@pytest.mark.parametrize(
    ("form", "decoder"), [("PNG", "pillow"), ("JPEG", "torchvision"), ("JPEG", "pillow"), ("TIFF", "pillow")]
)
def test_memory_that_runs_out_is_no_property_of_an_image(tmp_path: Path, form: str, decoder: str) -> None:
    path = tmp_path / "large"
    Image.new("RGB", (8000, 6000), "green").save(path, form, **({"compression": "tiff_lzw"} if form == "TIFF" else {}))
    done = subprocess.run([sys.executable, "-c", HUNGRY, path, decoder], capture_output=True, text=True, check=True)
    assert done.stdout == "memory\n"


class Hungry:
    """A source that has no memory left."""

    def __len__(self) -> int:
        return 1

    def read(self, row: int) -> bytes:
        raise MemoryError

    def modified(self, row: int) -> float:
        return 0.0


def test_memory_that_runs_out_stops_the_run_by_name(tmp_path: Path, toy) -> None:
    settings = RunSettings(device="cpu", batch_size=4)
    with pytest.raises(MachineError, match=r"the memory ran out at image 'a\.png'") as stopped:
        pipeline.run(Dataset(Index(np.array(["a.png"])), Hungry()), [toy], tmp_path, settings)
    assert stopped.value.exit_code == 1
    assert open_store(tmp_path).blocks["toy.hash"].status[0, 0] == Status.PENDING


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device, by Linux")
def test_a_full_disk_is_not_a_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a library wraps the error; a hub that is really out of reach is still called that."""
    from extract.encoders import find_encoders, weights

    monkeypatch.setattr(weights, "_reachable", lambda _endpoint: True)
    (encoder,) = find_encoders(["resnet50"])

    def fill() -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    with pytest.raises(DiskSpaceError, match="weights do not fit on the disk of") as full, weights.hub_errors(encoder):
        fill()
    assert full.value.exit_code == 1

    def wrapped() -> None:
        try:
            fill()
        except OSError as error:
            raise RuntimeError("download failed") from error

    with pytest.raises(DiskSpaceError), weights.hub_errors(encoder):
        wrapped()
    with pytest.raises(HubError), weights.hub_errors(encoder):
        raise ConnectionError("no route to host")
