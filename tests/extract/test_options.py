"""Compiling, trying failed images again, and digests of the files."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

import extract.index
from extract import pipeline
from extract.corpora import find_corpus
from extract.encoders import Weights, build_encoders, find_encoders
from extract.engines import Cpu
from extract.engines.forward import Forward, compile_if_faster
from extract.errors import DeviceError
from extract.index import JOURNAL, check_or_write_index
from extract.recompute import recompute
from extract.settings import RunSettings
from features_store import MismatchError, Status, UnsafeFileError, open_store

SMALL = "timm:test_resnet"
BLOCK = "timm-test_resnet.pool"
SETTINGS = RunSettings(device="cpu", batch_size=3, max_failed="100%")


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
    summary = pipeline.run(reading, networks, tmp_path, replace(SETTINGS, retry_failed=True))
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

    settings = replace(SETTINGS, content=True, batch_size=2, decode_threads=1)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(replace(found, files=Stopping(5)), networks[1:], tmp_path, settings)
    assert (tmp_path / JOURNAL).exists()
    assert open_store(tmp_path).content is None
    n_before = len(read)
    written = int((open_store(tmp_path).blocks["lowlevel.features"].status == Status.WRITTEN).sum())
    pipeline.run(replace(found, files=Stopping(-1)), networks[1:], tmp_path, settings)
    assert len(read) - n_before == 8 - written  # those with a vector are not read again for their digest
    assert stored_digests(tmp_path) == expected_digests(class_folder, found.index.ids)


def test_no_more_is_claimed_than_was_compared(class_folder, tmp_path, networks):
    """A picture that was replaced before its first digest cannot be noticed, and the summary says so; later it is."""
    reading, picture = find_corpus("folder").read(class_folder), class_folder / "cats" / "1.jpg"
    pipeline.run(reading, networks[1:], tmp_path, SETTINGS)
    picture.write_bytes((class_folder / "cats" / "0.jpg").read_bytes())
    settings = replace(SETTINGS, content=True)
    summary = pipeline.run(reading, networks[1:], tmp_path, settings)
    assert "no vector was left to make" in str(summary)
    assert "nothing was left to do" not in str(summary)
    (note,) = summary.notes
    assert note.startswith("the SHA-256 of 8 files was recorded now; none was when their vectors were made")
    assert "not compared with what was extracted" in note
    (note,) = pipeline.run(reading, networks[1:], tmp_path, settings).notes
    assert note.startswith("8 files have a SHA-256 from an earlier run")
    picture.write_bytes((class_folder / "cats" / "2.jpg").read_bytes())
    os.utime(picture, (time.time() + 60, time.time() + 60))
    with pytest.raises(MismatchError, match=r"'cats/1\.jpg' was another picture"):
        pipeline.run(reading, networks[1:], tmp_path, settings)


def test_a_missing_file_has_no_digest(class_folder, tmp_path, networks):
    reading = find_corpus("folder").read(class_folder)
    (class_folder / "cats" / "2.jpg").unlink()
    pipeline.run(reading, networks[1:], tmp_path, replace(SETTINGS, content=True, limit=6))
    assert open_store(tmp_path).content.any(axis=1).tolist() == [True, True, False, True, True, True, False, False]


@pytest.mark.parametrize(("journal", "asked"), [(False, True), (True, True), (False, False)])
def test_a_picture_that_was_replaced_is_noticed_before_its_vector(class_folder, tmp_path, networks, journal, asked):
    """Another encoder does not see another picture under one name, digests asked for or not; the known one stays."""
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
        pipeline.run(reading, networks[:1], tmp_path, replace(settings, content=asked))
    assert open_store(tmp_path).blocks[BLOCK].status[:, 0].tolist()[1] == Status.PENDING
    assert stored_digests(tmp_path) == before
    picture.write_bytes(old)
    assert not pipeline.run(reading, networks[:1], tmp_path, replace(settings, content=asked)).notes
    assert not (tmp_path / JOURNAL).exists()
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
    dataset = find_corpus("folder").read(class_folder)
    index = dataset.index
    if change == "a table elsewhere":
        index = replace(index, corpus={**index.corpus, "options": {"file": "/a/table.csv"}})
    check_or_write_index(tmp_path, replace(dataset, index=index))
    other = replace(dataset, index=_changed(index, change))
    if words is None:
        check_or_write_index(tmp_path, other)
    else:
        with pytest.raises(MismatchError, match=words) as told:
            check_or_write_index(tmp_path, other)
        assert "move index.h5 away" in str(told.value)


def test_of_two_that_begin_at_once_the_slower_one_goes_on(class_folder, tmp_path, monkeypatch):
    """Between its look for an index and its own, another process made one: it is compared, as any that is there."""
    dataset, real = find_corpus("folder").read(class_folder), extract.index.write_index

    def late(path, index):
        real(path, theirs)
        real(path, index)

    monkeypatch.setattr(extract.index, "write_index", late)
    theirs = dataset.index
    check_or_write_index(tmp_path / "same", dataset)
    theirs = dataset.index.take(np.arange(3))
    with pytest.raises(MismatchError, match="3 there, "):
        check_or_write_index(tmp_path / "other", dataset)


# ---- compiling ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(networks):
    """A network of one product, which compiles in a second."""
    import torch

    class Product(torch.nn.Module):
        slower = False

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(2048, 2048, generator=torch.manual_seed(0)) / 45)

        def forward(self, x):
            wide = x.flatten(1)[:, :2048]
            for _ in range(6 if self.slower and torch.compiler.is_compiling() else 1):
                wide = torch.tanh(wide @ self.weight)
            return wide[:, : networks[0].shapes["pool"][0]]

    return replace(networks[0], module=Product(), outputs=lambda module, x: {"pool": module(x)})


@pytest.mark.parametrize(
    ("mode", "begun", "n_views", "tried"),
    [
        ("auto", None, 10, False),
        ("auto", None, 10**9, True),
        ("auto", False, 10**9, False),  # as the blocks were begun
        ("auto", True, 10, True),
        ("off", True, 10**9, False),
        ("on", False, 1, True),
    ],
)
def test_auto_compiles_where_the_images_to_come_repay_it(
    networks, tiny, monkeypatch, tmp_path, mode, begun, n_views, tried
):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # what was compiled before is not there
    monkeypatch.setenv("PATH", "")  # nor is a compiler
    lines = []
    for network in (tiny, networks[1]):  # the second has nothing to compile
        compile_if_faster(network, Cpu(), n_views, batch_size=2, mode=mode, begun=begun, echo=lines.append)
    assert sum("is compiled first" in line for line in lines) == tried
    assert sum("cannot be compiled here" in line for line in lines) == tried


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_what_is_slower_when_compiled_runs_as_it_is(tiny):
    tiny.module.slower = True
    lines = []
    forward = compile_if_faster(tiny, Cpu(), 10**9, batch_size=8, echo=lines.append)
    assert not forward.compiled
    assert lines[1] == f"{SMALL}: is no faster when compiled, and runs as it is"
    assert compile_if_faster(tiny, Cpu(), 1, batch_size=8, mode="on", echo=lines.append).compiled  # as the user wants


def test_where_compiling_fails_the_network_runs_as_it_is_and_one_line_says_so(
    class_folder, tmp_path, tiny, monkeypatch
):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))  # what was compiled before is not there
    monkeypatch.setenv("PATH", "")  # nor is a compiler
    lines = []
    settings = replace(SETTINGS, compile="on", echo=lines.append)
    summary = pipeline.run(find_corpus("folder").read(class_folder), [tiny], tmp_path / "store", settings)
    assert summary.blocks[BLOCK] == {"written": 8}
    assert re.fullmatch(rf"{SMALL}: cannot be compiled here \(.+\) and runs as it is, only slower", lines[1])
    assert open_store(tmp_path / "store").blocks[BLOCK].passport["environment"]["compiled"] is False


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_passport_records_compiled_code_and_a_later_run_continues_with_it(class_folder, tmp_path, networks, tiny):
    lines = []
    reading, encoders = find_corpus("folder").read(class_folder), [tiny, networks[1]]
    settings = replace(SETTINGS, echo=lines.append)
    pipeline.run(reading, encoders, tmp_path / "parts", replace(settings, compile="on", limit=4))
    blocks = open_store(tmp_path / "parts").blocks
    assert blocks[BLOCK].passport["environment"]["compiled"] is True
    assert blocks["lowlevel.features"].passport["environment"]["compiled"] is False
    pipeline.run(reading, encoders, tmp_path / "parts", settings)
    assert sum("is compiled first" in line for line in lines) == 2  # compiled again
    pipeline.run(reading, encoders, tmp_path / "whole", replace(settings, compile="on"))
    parts, whole = (np.array(open_store(tmp_path / name).blocks[BLOCK].vectors) for name in ("parts", "whole"))
    assert parts.tobytes() == whole.tobytes()


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
    cast = build_encoders(find_encoders([SMALL, "lowlevel"]), Weights("random", 0))
    pipeline.run(reading, cast, tmp_path / "half", replace(SETTINGS, precision="bfloat16"))
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
    assert Cpu().autocast() is None
    assert Cpu().autocast("float32") is None
    with pytest.raises(DeviceError, match=r"unknown precision 'half'.*bfloat16"):
        Cpu().autocast("half")
    with pytest.raises(DeviceError, match=r"float16 is not possible on cpu.*valid there: float32, bfloat16"):
        Cpu().autocast("float16")
