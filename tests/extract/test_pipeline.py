"""The pipeline end to end: bad files, alignment, resume, and what a store refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from extract import pipeline
from extract.corpora import Dataset, find_corpus
from extract.encoders import Weights, build_encoders, find_encoders
from extract.engines import Cpu
from extract.engines.forward import Forward
from extract.errors import EncoderError
from extract.inputs.images import make_decoder
from extract.settings import RunSettings
from features_store import MismatchError, Status, open_store, passport

SMALL = "timm:test_efficientnet.r160_in1k"
BLOCK = "timm-test_efficientnet.r160_in1k.pool"
SETTINGS = RunSettings(device="cpu", batch_size=3, max_failed="100%")


@pytest.fixture(scope="module")
def networks():
    return build_encoders(find_encoders([SMALL, "lowlevel"]), Weights("random", 0))


class CountedSource:
    """A source that counts how often each image is read."""

    def __init__(self, source):
        self._source, self.reads = source, Counter()

    def __len__(self):
        return len(self._source)

    def read(self, row):
        self.reads[row] += 1
        return self._source.read(row)


def test_bad_files_get_their_status_and_nothing_shifts(class_folder, tmp_path, networks):
    good = {path.name: path.read_bytes() for path in (class_folder / "cats").iterdir()}
    (class_folder / "cats" / "4.jpg").write_bytes(good["0.jpg"][:-9])
    (class_folder / "cats" / "5.png").write_bytes(b"<html>not found</html>")
    (class_folder / "cats" / "6.gif").write_bytes(b"")
    Image.new("RGB", (2, 3000)).save(class_folder / "drinks" / "00.png")
    reading = find_corpus("folder").read(class_folder)
    (class_folder / "drinks" / "1.jpg").unlink()

    summary = pipeline.run(reading, networks, tmp_path / "store", SETTINGS)

    store = open_store(tmp_path / "store")
    ids = store.ids.tolist()
    expected = {
        "cats/4.jpg": Status.TRUNCATED,
        "cats/5.png": Status.UNDECODABLE,
        "cats/6.gif": Status.TRUNCATED,
        "drinks/00.png": Status.TOO_LARGE,
        "drinks/1.jpg": Status.MISSING,
    }
    decode, forward = make_decoder(), Forward(networks[0], Cpu())
    for block in store.blocks.values():
        assert block.sealed
        for row, image_id in enumerate(ids):
            assert block.status[row, 0] == expected.get(image_id, Status.WRITTEN), image_id
    for row, image_id in enumerate(ids):
        if image_id not in expected:
            rgb = decode((class_folder / image_id).read_bytes())
            alone = forward(networks[0].prepare(rgb)[None])["pool"][0]
            assert np.allclose(store.blocks[BLOCK].vectors[row, 0], alone, rtol=2e-3, atol=1e-3)
            assert np.allclose(store.blocks["lowlevel.features"].vectors[row, 0], networks[1].prepare(rgb), atol=1e-3)
    counts = {"written": 7, "missing": 1, "undecodable": 1, "truncated": 2, "too large": 1}
    assert summary.blocks[BLOCK] == summary.blocks["lowlevel.features"] == counts
    assert any("2 truncated" in line for line in summary.lines())


def test_each_image_is_read_once_for_all_encoders_and_a_later_encoder_runs_alone(class_folder, tmp_path, networks):
    found = find_corpus("folder").read(class_folder)
    source = CountedSource(found.files)
    reading = Dataset(found.index, source)
    pipeline.run(reading, networks[1:], tmp_path, replace(SETTINGS, limit=5))
    assert source.reads == dict.fromkeys(range(5), 1)
    before = (tmp_path / "lowlevel.features.h5").read_bytes()
    pipeline.run(reading, networks[:1], tmp_path, SETTINGS)
    assert source.reads == {row: 2 if row < 5 else 1 for row in range(8)}
    assert (tmp_path / "lowlevel.features.h5").read_bytes() == before
    pipeline.run(reading, networks, tmp_path, SETTINGS)
    assert source.reads == {row: 2 for row in range(8)}
    summary = pipeline.run(reading, networks, tmp_path, SETTINGS)
    assert sum(source.reads.values()) == 16
    assert summary.n_done == 0
    assert "nothing was left to do" in summary.lines()[0]


def test_vectors_do_not_depend_on_the_batch_size(class_folder, tmp_path, networks):
    reading = find_corpus("folder").read(class_folder)
    for size in (1, 8):
        pipeline.run(reading, networks, tmp_path / str(size), replace(SETTINGS, batch_size=size))
    one, other = (open_store(tmp_path / str(size)).blocks[BLOCK].vectors[:, 0].astype(float) for size in (1, 8))
    cosines = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert cosines.min() > 0.99999


def test_the_passport_says_how_the_block_was_made(class_folder, tmp_path, networks):
    reading = find_corpus("folder").read(class_folder)
    pipeline.run(reading, networks[:1], tmp_path, SETTINGS)
    found = open_store(tmp_path).blocks[BLOCK].passport
    assert found["weights"]["source"] == "random:0"
    assert len(found["weights"]["sha256"]) == 64
    assert found["transform"]["crop"] == [160, 160]
    assert found["index_digest"] == reading.index.digest
    assert {
        "encoder",
        "library",
        "architecture",
        "tap",
        "dtype",
        "autocast",
        "decoder",
        "resizer",
        "views",
    } <= found.keys()
    assert not {"versions", "environment"} & passport.key(found).keys()


def test_another_index_other_labels_and_other_weights_are_refused(class_folder, tmp_path, networks):
    read = find_corpus("folder").read
    pipeline.run(read(class_folder), networks[:1], tmp_path / "store", SETTINGS)
    with pytest.raises(MismatchError, match="other labels 'emotion', labels 'label'"):
        pipeline.run(read(class_folder, {"task": "emotion"}), networks[:1], tmp_path / "store", SETTINGS)
    with pytest.raises(MismatchError, match="split 'default'"):
        pipeline.run(read(class_folder, {"seed": "1"}), networks[:1], tmp_path / "store", SETTINGS)
    others = build_encoders(find_encoders([SMALL]), Weights("random", 1))
    with pytest.raises(MismatchError, match=r"weights\.sha256"):
        pipeline.run(read(class_folder), others, tmp_path / "store", SETTINGS)
    (class_folder / "cats" / "0.jpg").unlink()
    with pytest.raises(MismatchError, match=r"8 there, 7 here; 1 only there such as 'cats/0\.jpg'"):
        pipeline.run(read(class_folder), networks[:1], tmp_path / "store", SETTINGS)


def test_an_error_of_the_writer_stops_the_run(class_folder, tmp_path, networks, monkeypatch):
    from features_store import BlockWriter

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(BlockWriter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        pipeline.run(find_corpus("folder").read(class_folder), networks[:1], tmp_path, SETTINGS)


# ---- from Python ----------------------------------------------------------------------------------------------------


def test_the_call_from_python_is_the_command(class_folder, tmp_path, command_line):
    import extract

    lines: list[str] = []
    how = {"weights": "random:0", "options": {"task": "emotion"}, "limit": 5, "device": "cpu", "batch_size": 3}
    summary = extract.extract(
        "folder", data=class_folder, encoders=[SMALL, "lowlevel"], store=tmp_path / "python", echo=lines.append, **how
    )
    assert summary.blocks[BLOCK] == {"written": 5, "pending": 3}
    assert str(summary).endswith(f"store: {tmp_path / 'python'}")
    assert any("has random weights" in line for line in lines)
    code, _, err = command_line(
        *("run", "folder", "--data", class_folder, "--encoders", f"{SMALL},lowlevel", "--store", tmp_path / "typed"),
        *("--weights", "random:0", "--option", "task=emotion", "--limit", 5, "--device", "cpu", "--batch-size", 3),
    )
    assert code == 0, err
    python, typed = open_store(tmp_path / "python"), open_store(tmp_path / "typed")
    assert python.labels.keys() == typed.labels.keys() == {"emotion"}
    for name, block in typed.blocks.items():
        assert block.vectors[...].tobytes() == python.blocks[name].vectors[...].tobytes()
        assert block.passport == python.blocks[name].passport
    with pytest.raises(EncoderError, match="unknown profile 'cards'"):
        extract.extract("folder", data=class_folder, profile="cards")
    with pytest.raises(EncoderError, match="batch_size is 0"):
        extract.extract("folder", data=class_folder, batch_size=0)


def test_the_package_offers_what_it_names():
    import extract

    assert set(extract.__all__) <= set(dir(extract))
    assert all(getattr(extract, name) is not None for name in extract.__all__)
    assert "resumes an interrupted run" in extract.extract.__doc__
    with pytest.raises(AttributeError, match="it offers"):
        _ = extract.encode


# ---- killed -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory, photos) -> Path:
    """200 files, few of them different, large enough that a run over them takes several seconds."""
    root = tmp_path_factory.mktemp("many")
    (root / "a").mkdir()
    for at in range(200):
        path = root / "a" / f"{at:03}.png"
        if at < 12:
            Image.fromarray(photos["astronaut"][at : at + 400, at : at + 400]).save(path)
        else:
            os.link(root / "a" / f"{at % 12:03}.png", path)
    (root / "a" / "100.png").unlink()
    (root / "a" / "100.png").write_bytes(b"\x89PNG")
    return root


def command(data: Path, store: Path) -> list[str]:
    options = ["--encoders", f"{SMALL},lowlevel", "--weights", "random:0", "--batch-size", "4"]
    return [sys.executable, "-m", "extract", "run", "folder", "--data", str(data), "--store", str(store), *options]


def n_written(store: Path) -> int:
    """Count the images of the block that comes last."""
    try:
        with h5py.File(store / f"{BLOCK}.h5", "r", locking=False) as file:
            return int(np.count_nonzero(file[f"blocks/{BLOCK}/status"][...]))
    except (OSError, KeyError):
        return 0


def stop_in_the_middle(arguments: list[str], store: Path, how: signal.Signals) -> subprocess.CompletedProcess[str]:
    # A shell starts what runs in its background deaf to Ctrl-C, and what this process ignores, its children ignore, too
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, ours)
    deadline = time.monotonic() + 120
    while not n_written(store) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_twice_and_gone_on_with_gives_the_same_bytes_as_never_killed(many, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    interrupted = stop_in_the_middle(command(many, killed), killed, signal.SIGINT)
    assert interrupted.returncode == 130
    assert f"Resume with: extract run folder --data {many} --store {killed}" in interrupted.stderr
    assert "Traceback" not in interrupted.stderr
    after_first = n_written(killed)
    assert 0 < after_first < 200

    process = subprocess.Popen(command(many, killed), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while n_written(killed) <= after_first and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert n_written(killed) < 200
    for path in killed.glob("*.h5"):
        assert set(open_store(path).blocks) <= {BLOCK, "lowlevel.features"}  # opens after SIGKILL

    for store in (killed, whole):
        subprocess.run(command(many, store), check=True, capture_output=True, timeout=300)
    one, other = open_store(killed), open_store(whole)
    for name in (BLOCK, "lowlevel.features"):
        assert one.blocks[name].sealed
        assert other.blocks[name].sealed
        assert one.blocks[name].vectors[...].tobytes() == other.blocks[name].vectors[...].tobytes()
        assert np.array_equal(one.blocks[name].status, other.blocks[name].status)
        assert Counter(one.blocks[name].status[:, 0].tolist()) == {Status.WRITTEN: 199, Status.TRUNCATED: 1}


def test_pictures_with_broken_metadata_are_named_by_number(tmp_path, command_line):
    """Their pixels are good: rows like others, and a printed note."""
    data = tmp_path / "photos"
    for name, profile in {"a/good.jpg": b"", "b/1.jpg": b"short", "b/2.jpg": b"short"}.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), "red").save(data / name, icc_profile=profile)
    code, out, err = command_line(
        "run", "folder", "--data", data, "--store", tmp_path / "s", "--encoders", "lowlevel", "--device", "cpu"
    )
    assert code == 0, err
    assert "lowlevel.features: 3 written\n" in out
    assert "note: 2 images were used although the ICC profile is broken\n" in out


@pytest.mark.parametrize("taken", ["file", "link to nothing", "below a file"])
def test_a_store_that_is_no_folder(class_folder, tmp_path, command_line, taken):
    """One sentence, and what is there stays."""
    store = tmp_path / "s"
    store.symlink_to(tmp_path / "nothing") if taken == "link to nothing" else store.write_text("mine")
    place = store / "below" if taken == "below a file" else store
    code, _, err = command_line("run", "folder", "--data", class_folder, "--store", place, "--encoders", "lowlevel")
    assert code == 2
    assert f"error: --store {place} cannot be made" in err
    assert store.is_symlink() or store.read_text() == "mine"


def test_a_limit_can_be_spread_over_the_corpus() -> None:
    """So that a few images of a corpus which is sorted by class show all classes."""
    assert replace(SETTINGS, limit=5).rows(100).tolist() == [0, 1, 2, 3, 4]
    assert replace(SETTINGS, limit=5, spread=True).rows(100).tolist() == [0, 24, 49, 74, 99]
    assert replace(SETTINGS, limit=5, spread=True).rows(3).tolist() == [0, 1, 2]
