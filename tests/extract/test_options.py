"""Compiling, trying failed images again, and digests of the files."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from extract import pipeline
from extract.corpora import find_corpus
from extract.digests import JOURNAL
from extract.encoders import Weights, build_encoders, find_encoders
from extract.engines import Cpu, autocast_dtype
from extract.engines.compilation import Compilation
from extract.engines.forward import Forward
from extract.errors import DeviceError
from extract.recompute import recompute
from extract.settings import Circumstances
from extract.stores import check_or_write_index
from extract.timings import Clock
from features_store import MismatchError, Status, UnsafeFileError, open_store
from features_store.schema import FAILURES
from features_store.writer import FailureLimit

SMALL = "timm:test_resnet"
BLOCK = "timm-test_resnet.pool"
SETTINGS = pipeline.Settings(Circumstances("cpu"), batch_size=3, progress=False, max_failed=FailureLimit("100%"))


@pytest.fixture(scope="module")
def networks():
    return build_encoders(find_encoders([SMALL, "lowlevel"]), Weights("random", 0))


# ---- failed images --------------------------------------------------------------------------------------------------


def test_failed_images_are_tried_again_when_asked(class_folder, tmp_path, networks):
    good = (class_folder / "cats" / "0.jpg").read_bytes()
    (class_folder / "cats" / "0.jpg").write_bytes(good[:-9])
    (class_folder / "cats" / "1.jpg").write_bytes(b"")
    reading = find_corpus("folder").read(class_folder)
    pipeline.run(reading, networks, tmp_path, SETTINGS)
    before = open_store(tmp_path).blocks[BLOCK]
    assert before.status[:3, 0].tolist() == [Status.TRUNCATED, Status.TRUNCATED, Status.WRITTEN]
    kept = np.array(before.vectors[2:])
    (class_folder / "cats" / "0.jpg").write_bytes(good)
    assert pipeline.run(reading, networks, tmp_path, SETTINGS).n_done == 0
    summary = pipeline.run(reading, networks, tmp_path, replace(SETTINGS, retry=FAILURES))
    assert summary.n_done == 2
    assert summary.blocks[BLOCK] == {"written": 7, "truncated": 1}
    after = open_store(tmp_path).blocks[BLOCK]
    assert after.sealed
    assert np.array_equal(after.vectors[2:], kept)


def test_a_file_without_permission_and_a_folder_in_its_place_are_missing(class_folder, tmp_path, networks):
    reading = find_corpus("folder").read(class_folder)
    path = class_folder / "cats" / "0.jpg"
    path.unlink()
    path.mkdir()
    pipeline.run(reading, networks[1:], tmp_path, SETTINGS)
    assert open_store(tmp_path).blocks["lowlevel.features"].status[0, 0] == Status.MISSING


def test_vectors_that_are_not_finite_or_too_large_for_float16_are_recorded(class_folder, tmp_path, networks):
    import torch

    network = networks[0]

    def outputs(_module, batch):
        pool = torch.ones(len(batch), 96)
        pool[0, 5], pool[1, 7] = float("nan"), 1e6
        return {"pool": pool}

    broken = replace(network, outputs=outputs)
    reading = find_corpus("folder").read(class_folder)
    pipeline.run(reading, [broken], tmp_path, replace(SETTINGS, batch_size=8))
    status = open_store(tmp_path).blocks[BLOCK].status[:, 0].tolist()
    assert status == [Status.NON_FINITE, Status.NON_FINITE] + [Status.WRITTEN] * 6


# ---- digests --------------------------------------------------------------------------------------------------------


def expected_digests(folder, ids) -> list[str]:
    return [hashlib.sha256((folder / one).read_bytes()).hexdigest() for one in ids]


def stored_digests(store) -> list[str]:
    return [bytes(row).hex() for row in open_store(store).content]


def test_digests_of_the_files_stand_in_the_index(class_folder, tmp_path, networks):
    reading = find_corpus("folder").read(class_folder)
    pipeline.run(reading, networks[1:], tmp_path, SETTINGS)
    assert open_store(tmp_path).content is None
    pipeline.run(reading, networks[1:], tmp_path, replace(SETTINGS, content=True))  # nothing else is left to do
    assert stored_digests(tmp_path) == expected_digests(class_folder, reading.index.ids)
    store = open_store(tmp_path)
    assert store.labels.keys() == reading.index.labels.keys()
    assert store.splits.keys() == reading.index.splits.keys()
    assert not (tmp_path / JOURNAL).exists()


def test_digests_survive_an_interruption_and_each_file_is_read_once(class_folder, tmp_path, networks, monkeypatch):
    found = find_corpus("folder").read(class_folder)
    read = []

    class Stopping:
        def __init__(self, at):
            self.at = at

        def __len__(self):
            return len(found.files)

        def read(self, row):
            if row == self.at:
                raise KeyboardInterrupt
            read.append(row)
            return found.files.read(row)

        def modified(self, row):
            return found.files.modified(row)

    settings = replace(SETTINGS, content=True, batch_size=2, decoders=1)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(replace(found, files=Stopping(5)), networks[1:], tmp_path, settings)
    assert (tmp_path / JOURNAL).exists()
    assert open_store(tmp_path).content is None
    n_before = len(read)
    written = int((open_store(tmp_path).blocks["lowlevel.features"].status == Status.WRITTEN).sum())
    pipeline.run(replace(found, files=Stopping(-1)), networks[1:], tmp_path, settings)
    assert len(read) - n_before == 8 - written  # those with a vector are not read again for their digest
    assert stored_digests(tmp_path) == expected_digests(class_folder, found.index.ids)


def test_a_missing_file_has_no_digest(class_folder, tmp_path, networks):
    reading = find_corpus("folder").read(class_folder)
    (class_folder / "cats" / "2.jpg").unlink()
    pipeline.run(reading, networks[1:], tmp_path, replace(SETTINGS, content=True, limit=6))
    assert open_store(tmp_path).content.any(axis=1).tolist() == [True, True, False, True, True, True, False, False]


@pytest.mark.parametrize("journal", [False, True])
def test_a_picture_that_was_replaced_is_noticed_before_its_vector(class_folder, tmp_path, networks, journal):
    """Another encoder does not see another picture under one name, and the known digest stays."""
    reading = find_corpus("folder").read(class_folder)
    settings = replace(SETTINGS, content=True)
    pipeline.run(reading, networks[1:], tmp_path, settings)
    before = stored_digests(tmp_path)
    if journal:  # one that was left of an index of other images says nothing about these
        (tmp_path / JOURNAL).write_bytes(bytes(range(32)) * (len(reading.index) + 1))
    picture = class_folder / "cats" / "1.jpg"
    old = picture.read_bytes()
    picture.write_bytes((class_folder / "cats" / "0.jpg").read_bytes())
    with pytest.raises(MismatchError, match=r"'cats/1\.jpg' was another picture"):
        pipeline.run(reading, networks[:1], tmp_path, settings)
    assert open_store(tmp_path).blocks[BLOCK].status[:, 0].tolist()[1] == Status.PENDING
    assert stored_digests(tmp_path) == before
    picture.write_bytes(old)
    pipeline.run(reading, networks[:1], tmp_path, settings)
    assert stored_digests(tmp_path) == before


def test_a_journal_that_is_a_link(class_folder, tmp_path, networks):
    """The file that it leads to is neither truncated nor filled."""
    reading = find_corpus("folder").read(class_folder)
    pipeline.run(reading, networks[1:], tmp_path, SETTINGS)
    victim = tmp_path.with_name("victim")
    victim.write_text("precious")
    (tmp_path / JOURNAL).symlink_to(victim)
    with pytest.raises(UnsafeFileError, match="symbolic link"):
        pipeline.run(reading, networks[1:], tmp_path, replace(SETTINGS, content=True))
    assert victim.read_text() == "precious"


# ---- what the index means -------------------------------------------------------------------------------------------


def _changed(index, change):
    labels = index.labels["label"]
    split = index.splits["default"]
    n = len(index)
    return {
        "class names": lambda: replace(
            index, labels={"label": replace(labels, task=replace(labels.task, classes=("x", "y")))}
        ),
        "values": lambda: replace(index, labels={"label": replace(labels, values=1 - labels.values)}),
        "groups": lambda: replace(index, groups=np.arange(n) // 2),
        "kind of split": lambda: replace(index, splits={"default": replace(split, kind="folds")}),
        "options": lambda: replace(index, corpus={"name": "folder", "options": {**index.corpus["options"], "seed": 9}}),
        "nothing": lambda: replace(index, splits={"default": replace(split, source="")}),
        "a table elsewhere": lambda: replace(index, corpus={**index.corpus, "options": {"file": "/b/table.csv"}}),
    }[change]()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("class names", r"other labels 'label': classes \['cats', 'drinks'\] / \['x', 'y'\]"),
        ("values", r"other labels 'label': values of 8 images, the first is 'cats/0.jpg': 0 / 1"),
        ("groups", "other groups: not there, but here"),
        ("kind of split", "other split 'default': kind parts / folds"),
        ("options", "other options: seed 0 / 9"),
        ("nothing", None),
        ("a table elsewhere", None),
    ],
)
def test_a_store_whose_meaning_changed_is_refused(class_folder, tmp_path, change, words):
    """Everything that labels, splits and groups say is compared; the sentence names the part, and how to go on."""
    index = find_corpus("folder").read(class_folder).index
    if change == "a table elsewhere":
        index = replace(index, corpus={**index.corpus, "options": {"file": "/a/table.csv"}})
    check_or_write_index(tmp_path, index)
    other = _changed(index, change)
    if words is None:
        check_or_write_index(tmp_path, other)
    else:
        with pytest.raises(MismatchError, match=words) as told:
            check_or_write_index(tmp_path, other)
        assert "move index.h5 away" in str(told.value)


# ---- compiling ------------------------------------------------------------------------------------------------------


def test_auto_compiles_where_the_images_to_come_repay_it(networks):
    plain, none = (Forward(network, Cpu()) for network in networks)
    off, auto, on = (
        partial(Compilation(mode, Cpu(), [].append).wanted, batch_size=2) for mode in ("off", "auto", "on")
    )
    assert not auto(plain, 10, before=None)
    assert auto(plain, 10**9, before=None)
    assert not auto(plain, 10**9, before=False)  # as the blocks were begun
    assert auto(plain, 10, before=True)
    assert not off(plain, 10**9, before=True)
    assert on(plain, 1, before=False)
    assert not on(none, 10**9, before=None)  # nothing to compile


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_what_is_slower_when_compiled_runs_as_it_is(networks):
    import torch

    class Slower(torch.nn.Module):
        def forward(self, x):
            wide = x.flatten(1)[:, :2048]
            for _ in range(30 if torch.compiler.is_compiling() else 1):  # 8 ms each
                wide = torch.tanh(wide.T @ wide)[:8]
            return wide.sum(1, keepdim=True).expand(-1, 32)

    network = replace(networks[0], module=Slower(), outputs=lambda module, x: {"pool": module(x)})
    told = []
    forward = Compilation("auto", Cpu(), told.append).forward(network, 10**9, Clock(), batch_size=8, before=None)
    assert not forward.compiled
    assert told[1] == f"{SMALL}: is no faster when compiled, and runs as it is"
    assert (
        Compilation("on", Cpu(), told.append).forward(network, 1, Clock(), batch_size=8, before=None).compiled
    )  # as was asked


def test_where_compiling_fails_the_network_runs_as_it_is_and_one_line_says_so(
    class_folder, tmp_path, networks, monkeypatch
):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))  # what was compiled before is not there
    monkeypatch.setenv("PATH", "")  # nor is a compiler
    told = []
    settings = replace(SETTINGS, compile="on", tell=told.append)
    summary = pipeline.run(find_corpus("folder").read(class_folder), networks[:1], tmp_path / "store", settings)
    assert summary.blocks[BLOCK] == {"written": 8}
    assert re.fullmatch(rf"{SMALL}: cannot be compiled here \(.+\) and runs as it is, only slower", told[1])
    assert open_store(tmp_path / "store").blocks[BLOCK].passport["environment"]["compiled"] is False


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_passport_says_compiled_and_a_later_run_goes_on_so(class_folder, tmp_path, networks):
    told = []
    reading = find_corpus("folder").read(class_folder)
    settings = replace(SETTINGS, tell=told.append)
    pipeline.run(reading, networks, tmp_path / "parted", replace(settings, compile="on", limit=4))
    blocks = open_store(tmp_path / "parted").blocks
    assert blocks[BLOCK].passport["environment"]["compiled"] is True
    assert blocks["lowlevel.features"].passport["environment"]["compiled"] is False
    pipeline.run(reading, networks, tmp_path / "parted", settings)
    assert sum("is compiled first" in line for line in told) == 2  # compiled again
    pipeline.run(reading, networks, tmp_path / "whole", replace(settings, compile="on"))
    one, other = (np.array(open_store(tmp_path / name).blocks[BLOCK].vectors) for name in ("parted", "whole"))
    assert one.tobytes() == other.tobytes()


def test_the_buffer_of_a_network_is_in_the_layout_that_it_reads(networks):
    forward = Forward(networks[0], Cpu())
    buffer = forward.buffer(4)
    assert buffer.shape == (4, *networks[0].input_shape)
    assert buffer.strides[1] == 1  # channels last
    assert forward.buffer(4) is buffer
    buffer[:] = np.random.default_rng(0).integers(0, 256, buffer.shape, dtype=np.uint8)
    assert np.array_equal(forward(buffer)["pool"], forward(np.ascontiguousarray(buffer))["pool"])


# ---- precision ------------------------------------------------------------------------------------------------------


def test_bfloat16_is_asked_for_recorded_and_near(class_folder, tmp_path, networks):
    reading = find_corpus("folder").read(class_folder)
    made = Circumstances("cpu", autocast_dtype(Cpu(), "bfloat16"))
    pipeline.run(reading, networks, tmp_path / "half", replace(SETTINGS, made=made))
    pipeline.run(reading, networks, tmp_path / "full", SETTINGS)
    half, full = (open_store(tmp_path / name).blocks[BLOCK] for name in ("half", "full"))
    assert (half.passport["autocast"], full.passport["autocast"]) == ("bfloat16", None)
    one, other = (np.array(block.vectors).reshape(8, -1).astype(np.float64) for block in (half, full))
    assert not np.array_equal(one, other)
    assert ((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).min() > 0.999
    with pytest.raises(MismatchError, match="autocast"):  # a block holds vectors of one kind
        pipeline.run(reading, networks, tmp_path / "half", SETTINGS)
    again = recompute(half.passport, reading.index.ids[:2], {"name": "folder", "options": {}}, class_folder)
    assert np.allclose(np.concatenate(again), one[:2], rtol=2e-3, atol=1e-3)


def test_a_precision_that_is_none_or_not_of_the_device():
    assert autocast_dtype(Cpu()) is None
    assert autocast_dtype(Cpu(), "float32") is None
    with pytest.raises(DeviceError, match=r"unknown precision 'half'.*bfloat16"):
        autocast_dtype(Cpu(), "half")
    with pytest.raises(DeviceError, match=r"float16 is not possible on cpu.*valid there: float32, bfloat16"):
        autocast_dtype(Cpu(), "float16")
