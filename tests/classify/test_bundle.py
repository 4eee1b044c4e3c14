"""Bundles: what goes in comes out equal, also elsewhere; what no bundle holds is refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mutants import mutant
from typer.testing import CliRunner

from classify.__main__ import app
from classify.config import RunConfig
from classify.errors import BundleError
from classify.heads.trees import Trees
from classify.inference.bundle import open_model, read_bundle, write_bundle
from classify.inference.cards import model_card_text
from classify.inference.model import run_model
from classify.runs import train as experiment
from classify.runs.folder import Run, read_run
from features_store.errors import AffectoryError, ExistsError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle(polarity_run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "polarity.zip"
    write_bundle(polarity_run, path)
    return path


@pytest.mark.parametrize("task", ["polarity", "evokes", "valence", "affect"])
def test_round_trip(runs_folder, tmp_path, task) -> None:
    """The same answers, to the last digit, for every kind of task."""
    run = read_run(runs_folder / task / "linear")
    write_bundle(run, tmp_path / "b.zip")
    ours, theirs = run_model(run), open_model(tmp_path / "b.zip")
    x = np.random.default_rng(0).normal(size=(5, ours.head.n_features_in_)).astype(np.float32)
    assert np.array_equal(ours.scores(x), theirs.scores(x))
    assert (ours.task, ours.blocks, ours.postprocessing) == (theirs.task, theirs.blocks, theirs.postprocessing)
    assert ours.passports == theirs.passports


def test_same_run_same_bytes(polarity_run, bundle, tmp_path) -> None:
    write_bundle(polarity_run, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()


def test_nothing_is_overwritten(polarity_run, bundle) -> None:
    before = bundle.read_bytes()
    with pytest.raises(ExistsError):
        write_bundle(polarity_run, bundle)
    assert bundle.read_bytes() == before


def test_cards(runs_folder, bundle) -> None:
    """Counts, metrics and baselines stand in them; what a corpus brings cannot act."""
    with zipfile.ZipFile(bundle) as archive:
        model, data = (archive.read(f"{name}_CARD.md").decode() for name in ("MODEL", "DATA"))
    for word in ("weighted F1", "majority", "alpha.pool", "0" * 64, "Limits", "calibrat"):
        assert word in model
    assert "planted in alpha.pool" in data
    assert "| negative |" in data
    assert "<script" not in model_card_text(read_run(runs_folder / "evokes" / "linear"))


def test_elsewhere(pictured_runs, pictures, tmp_path, monkeypatch) -> None:
    """In another folder, where neither a run nor a store is opened: equal probabilities."""
    run = pictured_runs["mlp"]
    write_bundle(run, tmp_path / "b.zip")
    image = sorted((pictures / "cold").glob("*.png"))[0]
    here = CliRunner().invoke(app, ["predict", str(run.folder), str(image), "--json"])
    monkeypatch.chdir(tmp_path)
    for name in ("features_store.open_store", "classify.runs.folder.read_run", "classify.inference.bundle.read_run"):
        monkeypatch.delattr(name)
    there = CliRunner().invoke(app, ["predict", "b.zip", str(image), "--json"])
    assert there.exit_code == 0, there.exception
    assert json.loads(there.stdout) == json.loads(here.stdout)


def test_only_what_the_head_lists_is_packed(polarity_run, tmp_path) -> None:
    """A file that somebody laid into the folder of a head does not travel with it, nor what a link of it points to."""
    (tmp_path / "secret").write_text("secret")
    run = read_run(shutil.copytree(polarity_run.folder, tmp_path / "run"))
    (run.folder / "model" / "booster-77.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(BundleError, match="is not listed"):
        write_bundle(run, tmp_path / "b.zip")
    (run.folder / "model" / "booster-77.txt").unlink()
    arrays = run.folder / "model" / "model.safetensors"
    arrays.rename(tmp_path / "arrays")
    arrays.symlink_to(tmp_path / "arrays")
    with pytest.raises(AffectoryError, match="symbolic link"):
        write_bundle(run, tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


@pytest.mark.parametrize("task", ["polarity", "evokes", "affect"])
def test_trees_of_a_bundle(store, tmp_path, task) -> None:
    """The boosters of a bundle answer as those of the run, and LightGBM does not read them."""
    out, settings = str(tmp_path / "run"), {"n_rounds": 6, "n_jobs": 1}
    run = experiment.run(RunConfig(str(store), task, "gbm", ("alpha.pool",), settings=settings, resamples=20, out=out))
    write_bundle(run, tmp_path / "b.zip")
    ours, theirs = run_model(run), read_bundle(tmp_path / "b.zip")
    x = np.random.default_rng(0).normal(size=(40, ours.head.n_features_in_)).astype(np.float32)
    assert np.allclose(ours.scores(x), theirs.scores(x), rtol=1e-13, atol=0)
    assert all(isinstance(one, Trees) for one in theirs.head.boosters_ if one is not None)
    files = _files(tmp_path / "b.zip")
    text = files["model/booster-0.txt"].replace(b"left_child=", b"left_child=7", 1)
    head = json.loads(files["model/head.json"])
    head["files"]["booster-0.txt"] = hashlib.sha256(text).hexdigest()
    changed = {**files, "model/booster-0.txt": text, "model/head.json": json.dumps(head).encode()}
    with pytest.raises(BundleError, match="tree"):
        read_bundle(_write(tmp_path / "hostile.zip", _sealed(changed)))


@pytest.mark.parametrize("name", ["model/head.json", "task.json", "adjustment.json", "manifest.json"])
def test_a_changed_bundle_answers_or_is_refused(bundle, tmp_path, name) -> None:
    files, random = _files(bundle), np.random.default_rng(len(name))
    for _ in range(12):
        changed = {**files, name: mutant(json.loads(files[name]), random)}
        with contextlib.suppress(BundleError):
            model = read_bundle(_write(tmp_path / "b.zip", changed if "manifest" in name else _sealed(changed)))
            assert np.isfinite(model.scores(np.zeros((1, model.head.n_features_in_), np.float32))).all()


# What a hostile bundle may be. Each takes the files of a good one and returns what to write instead.
Files = dict[str, bytes]


def _sealed(files: Files) -> Files:
    """Make the manifest right again, as somebody would who packs a hostile bundle."""
    record = {
        n: {"sha256": hashlib.sha256(d).hexdigest(), "bytes": len(d)} for n, d in files.items() if "manifest" not in n
    }
    told = json.loads(files["manifest.json"]) | {"files": record}
    return {**files, "manifest.json": json.dumps(told).encode()}


def _edited(name: str, **changes: object) -> Callable[[Files], Files]:
    return lambda files: _sealed({**files, name: json.dumps({**json.loads(files[name]), **changes}).encode()})


def _write(path: Path, files: Files, *, compression: int = zipfile.ZIP_STORED, mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type, entry.external_attr = compression, mode << 16
            archive.writestr(entry, data)
    return path


def _files(bundle: Path) -> Files:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: _sealed({**f, "../../evil.sh": b"x"}), "which no bundle has"),
        (lambda f: _sealed({**f, "/etc/evil": b"x"}), "which no bundle has"),
        (lambda f: _sealed({**f, "model/../../evil": b"x"}), "which no bundle has"),
        (lambda f: _sealed({**f, "model\\evil.py": b"x"}), "which no bundle has"),
        (lambda f: _sealed({**f, "model/head.pkl": b"x"}), "which no bundle has"),
        (lambda f: {**f, "model/booster-7.txt": b"x"}, "not listed"),
        (lambda f: {n: d for n, d in f.items() if n != "passports.json"}, "missing"),
        (lambda f: _sealed({n: d for n, d in f.items() if n != "task.json"}), "missing"),
        (lambda f: {n: d for n, d in f.items() if n != "manifest.json"}, "no manifest"),
        (lambda f: {**f, "adjustment.json": f["adjustment.json"] + b" "}, "SHA-256 or length differs"),
        (lambda f: {**f, "model/model.safetensors": f["model/model.safetensors"][:-1] + b"\x7e"}, "SHA-256"),
        (lambda f: {**f, "manifest.json": b'{"format": "affectory-bundle", "format_version": 9}'}, "version 9"),
        (lambda f: {**f, "manifest.json": b"[" * 100_000}, "refused"),
        (lambda f: {**f, "manifest.json": b" " * (9 * 2**20)}, "at most"),
        (_edited("task.json", classes=["a", "b"]), "do not fit|damaged"),
        (_edited("task.json", classes=["a", "b", "\x1b[31mc"]), "refused"),
        (_edited("task.json", kind="magic"), "kind"),
        (_edited("task.json", n_features=10**12), "features"),
        (_edited("task.json", blocks=["other"]), "passports"),
        (_edited("adjustment.json", calibration={"method": "magic"}), "calibration"),
        (_edited("model/head.json", head="os.system"), "head"),
        (_edited("model/head.json", format="other"), "format"),
        (lambda f: _sealed({**f, "model/model.safetensors": b"\xff" * 64}), "damaged"),
    ],
)
def test_hostile(bundle, tmp_path, change, words) -> None:
    """One sentence that names the file, and nothing beside it."""
    (tmp_path / "in").mkdir()
    path = _write(tmp_path / "in" / "hostile.zip", change(_files(bundle)))
    with pytest.raises(BundleError, match=words) as caught:
        read_bundle(path)
    assert str(path) in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "hostile.zip"]


def test_bomb(bundle, tmp_path) -> None:
    """64 MiB of zeros that take 64 KiB: compressed members are refused, before any is inflated."""
    files = {**_files(bundle), "MODEL_CARD.md": bytes(2**26)}
    path = _write(tmp_path / "bomb.zip", _sealed(files), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(BundleError, match="bomb"):
        read_bundle(path)


def test_a_bundle_of_holes(tmp_path) -> None:
    """Two gigabytes that take no space on a disk are not read into memory."""
    (tmp_path / "holes.zip").touch()
    os.truncate(tmp_path / "holes.zip", 2**31)
    tracemalloc.start()
    with pytest.raises(BundleError, match="is not a bundle"):
        read_bundle(tmp_path / "holes.zip")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_overlapping_bomb(bundle, tmp_path) -> None:
    """Members that share their bytes: more inside than outside."""
    path = _write(tmp_path / "overlap.zip", {**_files(bundle), "model/booster-0.txt": bytes(100_000)})
    data = path.read_bytes()
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(1, 5):  # entries of the directory that point at the same member
            entry = zipfile.ZipInfo(f"model/booster-{number}.txt")
            first = archive.getinfo("model/booster-0.txt")
            entry.header_offset, entry.CRC, entry.file_size = first.header_offset, first.CRC, first.file_size
            entry.compress_size = first.compress_size
            archive.filelist.append(entry)
            archive.NameToInfo[entry.filename] = entry
            archive._didModify = True
    assert path.stat().st_size < len(data) + 2000
    with pytest.raises(BundleError, match=r"refused|is not a bundle"):
        read_bundle(path)


@pytest.mark.parametrize(("kind", "words"), [(stat.S_IFLNK, "plain file"), (stat.S_IFIFO, "plain file")])
def test_links(bundle, tmp_path, kind, words) -> None:
    path = _write(tmp_path / "link.zip", _files(bundle), mode=kind | 0o777)
    with pytest.raises(BundleError, match=words):
        read_bundle(path)


def test_twice_the_same_name(bundle, tmp_path) -> None:
    path = _write(tmp_path / "twice.zip", _files(bundle))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("task.json", b"{}")
    with pytest.raises(BundleError, match="twice"):
        read_bundle(path)


@pytest.mark.parametrize("cut", [0, 10, 1000, -10])
def test_not_whole(bundle, tmp_path, cut) -> None:
    path = tmp_path / "cut.zip"
    path.write_bytes(bundle.read_bytes()[:cut])
    with pytest.raises(BundleError, match="is not a bundle"):
        read_bundle(path)


def test_sizes_that_are_claimed_take_no_memory(pictured_runs, tmp_path) -> None:
    """A head that says it has a layer of a thousand million units is refused without making it."""
    write_bundle(pictured_runs["mlp"], tmp_path / "b.zip")
    files = _files(tmp_path / "b.zip")
    head = json.loads(files["model/head.json"])
    head["params"]["hidden"] = [10**9]
    path = _write(tmp_path / "large.zip", _sealed({**files, "model/head.json": json.dumps(head).encode()}))
    with pytest.raises(BundleError, match=r"hidden is \[1000000000\]"):
        read_bundle(path)


def test_a_run_with_other_files(polarity_run, tmp_path) -> None:
    folder = shutil.copytree(polarity_run.folder, tmp_path / "run")
    (folder / "model" / "notes.txt").write_text("x")
    with pytest.raises(BundleError, match=r"notes\.txt"):
        write_bundle(Run(folder, polarity_run.report), tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()
