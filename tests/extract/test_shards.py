"""Several devices: a process for each, whose shards together are what one process makes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from late import Late

from extract import shards
from extract.engines import DEVICES
from extract.errors import ExtractError
from features_store import open_store

POOL = "timm-test_efficientnet.pool"


@pytest.fixture
def run(command_line, class_folder, tmp_path, monkeypatch):
    """Extract nine images, of which one is broken, on stand-ins; returns exit code, summary, standard error, store."""
    monkeypatch.setitem(DEVICES, "cuda", type("Late", (Late,), {"delay": 0.0}))
    (class_folder / "cats/broken.jpg").write_bytes(b"no picture")

    def go(device, *more, name="store", fate=("none", "none"), encoders="timm:test_efficientnet,lowlevel"):
        monkeypatch.setattr(shards, "COMMAND", [sys.executable, str(Path(__file__).with_name("late_shard.py")), *fate])
        code, out, err = command_line(
            *("run", "folder", "--data", class_folder, "--store", tmp_path / name, "--encoders", encoders, "--json"),
            *("--weights", "random:0", "--compile", "off", "--device", device, "--max-failed", "2", *more),
        )
        return code, json.loads(out) if out else {}, err, tmp_path / name

    return go


def contents(store: Path) -> dict[str, tuple[bytes, ...]]:
    blocks = open_store(store).blocks
    return {
        name: (one.vectors[...].tobytes(), one.status[...].tobytes(), one.digests[...].tobytes(), bytes([one.sealed]))
        for name, one in blocks.items()
    }


def files(store: Path) -> set[str]:
    return {path.name for path in store.iterdir() if not path.name.startswith(".")}


class Unlike(Late):
    """Each card is of another make."""

    delay = 0.0

    def name(self):
        return f"cuda:{self.index} (card {self.index})"

    def identity(self):
        return {"device": "cuda", "device_name": f"card {self.index}"}


def test_two_processes_make_the_bytes_of_one(run, monkeypatch):
    assert run("cuda:0", encoders="lowlevel")[0] == 0  # what is there is not made again
    monkeypatch.setitem(DEVICES, "cuda", Unlike)
    code, summary, err, store = run("cuda:0,1")
    assert code == 0, err
    assert "warning: unlike devices (cuda:0 (card 0): float32 / cuda:1 (card 1): float32)" in err
    assert "cuda:1, rows 4:9: cuda:1 (Late, 1 GiB): float32, batches of 4" in err
    assert "2 shards were merged" in err
    assert summary["n_done"] == 9
    assert summary["n_failed"] == 1
    _, _, _, one = run("cuda:0", name="one")
    assert contents(store) == contents(one)
    assert files(store) == files(one)
    assert open_store(store).labels.keys() == open_store(one).labels.keys()
    assert (store / f"{POOL}.failures.csv").read_text() == (one / f"{POOL}.failures.csv").read_text()
    assert run("cuda:0,1")[1]["n_done"] == 0


@pytest.mark.slow
def test_a_process_that_ends_leaves_the_rows_of_all_and_the_same_command_resumes(run):
    for fate, words in (
        (("cuda:1", "dies"), "failed: the forward pass"),
        (("cuda:0", "killed"), "was killed by signal 9"),
    ):
        code, _, err, store = run("cuda:0,1", "--batch-size", 1, fate=fate)
        assert code == 1
        assert "Traceback" not in err
        last = err.rstrip().splitlines()[-1]
        assert last.startswith(f"error: the process of {fate[0]} for the rows ")
        assert words in last
        assert last.endswith("the same command resumes it")
        assert not open_store(store).blocks
    # The other device had finished its rows, and the one that died had written some.
    assert sum(int((open_store(path).blocks[POOL].status[...] == 1).sum()) for path in store.glob("shards/*")) >= 5
    code, _, err, _ = run("cuda:0,1", "--batch-size", 1, "--max-failed", 0)
    assert code == 3
    assert "unfinished: 1 images failed and at most 0 may" in err
    assert not open_store(store).blocks
    code, _, err, _ = run("cuda:0,1", "--batch-size", 1)  # nothing but merging is left
    assert code == 0, err
    assert contents(store) == contents(run("cuda:0", "--batch-size", 1, name="one")[3])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cuda:0,0",), "names a device twice"),
        (("cpu:0,1",), "unknown device 'cpu:0'"),
        (("cuda:0,x",), "unknown device 'cuda:x'"),
        (("cuda:0,1", "--rows", "0:2"), "--device cuda:0,1 and --rows 0:2 exclude each other"),
        (("cuda:0,1", "--limit", "2"), "--limit 2 exclude"),
    ],
)
def test_mistakes_are_found_before_the_work(run, arguments, words):
    code, _, err, store = run(*arguments)
    assert code == 2
    assert words in err
    assert not store.exists()


def test_one_precision_is_needed(run, monkeypatch):
    monkeypatch.setattr(Unlike, "default_precision", lambda self: "float16" if self.index else None)
    monkeypatch.setitem(DEVICES, "cuda", Unlike)
    code, _, err, _ = run("cuda:0,1")
    assert code == 2
    assert "(cuda:0 (card 0): float32 / cuda:1 (card 1): float16); give --precision float32" in err


@pytest.mark.parametrize("name", ["shards", "shards/0-9"])
def test_shards_that_are_links_are_left_alone(tmp_path, name) -> None:
    """What is merged is removed, and what lies behind a link is not ours."""
    (tmp_path / "mine" / "0-9").mkdir(parents=True)
    (tmp_path / "store" / name).parent.mkdir(parents=True)
    (tmp_path / "store" / name).symlink_to(tmp_path / "mine")
    with pytest.raises(ExtractError, match="symbolic link"):
        shards.shard_folders(tmp_path / "store", 9, 1)
