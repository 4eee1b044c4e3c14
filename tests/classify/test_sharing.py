"""What is meant for sharing tells nothing of the machine: no home folder, no user, no host, no comment of a picture."""

from __future__ import annotations

import base64
import json
import platform
import shutil
from pathlib import Path

import numpy as np
import pytest

import classify
from classify.config import load_config
from classify.errors import ConfigError
from classify.explain.explainer import scored_images
from classify.inference.bundle import write_bundle
from classify.pages.pictures import Pictures
from classify.runs.folder import read_run
from classify.studies.sweep import read_sweep
from features_store.errors import AffectoryError

COMMENT = b"taken by Quendolin at home"


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_chain_leaves_no_name(tmp_path, monkeypatch) -> None:
    """Pictures, vectors, a run, its page, its bundle: searched for the home folder, the user's and the host's name."""
    image = pytest.importorskip("PIL.Image")
    from extract import pipeline
    from extract.corpora import find_corpus
    from extract.encoders import Weights, build_encoders, find_encoders
    from extract.settings import RunSettings

    home = tmp_path / "quendolin"
    work = home / "work"
    work.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "quendolin")
    monkeypatch.chdir(work)
    random = np.random.default_rng(0)
    for i in range(40):
        place = work / "data" / "shared" / ("calm" if i % 2 else "wild")
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 60 + 180 * (i % 2), size=(40, 40, 3)).astype(np.uint8)
        image.fromarray(pixels).save(place / f"{i:02}.jpg", comment=COMMENT)
    settings = RunSettings(device="cpu", batch_size=4, decode_threads=1)
    networks = build_encoders(find_encoders(["lowlevel"]), Weights())
    store = work / "features" / "shared"
    pipeline.run(find_corpus("folder").read(work / "data" / "shared", {}), networks, store, settings)
    run = classify.run(store.absolute(), "label", "linear", resamples=20, out=work / "runs" / "one")
    classify.report(run, work / "runs" / "report.html")
    write_bundle(run, work / "runs" / "b.zip")
    words = [str(home).encode(), b"quendolin", COMMENT]
    # Short names stand by chance in vectors.
    words += [name.encode() for name in (platform.node(), platform.release()) if len(name) > 5]
    pages = everything(work / "runs") | everything(store)
    assert len(pages) > 8
    found = {(path.name, word) for path, data in pages.items() for word in words if word.lower() in data.lower()}
    assert found == set()
    shown = Pictures.of_corpus("shared", None).of("calm/01.jpg")
    assert COMMENT in (work / "data" / "shared" / "calm" / "01.jpg").read_bytes()
    assert COMMENT not in base64.b64decode(shown.uri.partition(",")[2])
    monkeypatch.chdir("/")
    assert load_config(work / "runs" / "one" / "config.toml").store == str(store)


def test_a_store_by_another_way_is_told_by_name(tmp_path, store, monkeypatch) -> None:
    """Where the way from the run to the store leads through the home folder, only the store's name is left."""
    monkeypatch.setenv("HOME", str(store.parent))
    run = classify.run(store, "polarity", "dummy", blocks=["alpha.pool"], resamples=20, out=tmp_path / "run")
    assert f'store = "{store.name}"' in (run.folder / "config.toml").read_text()


def test_a_file_may_not_choose_a_place_elsewhere(tmp_path, store, monkeypatch) -> None:
    """What a stranger's file says of where to write holds within the working folder; the command line may say more."""
    monkeypatch.chdir(tmp_path)
    lines = f'store = "{store}"\ntask = "polarity"\nblocks = ["alpha.pool"]\n'
    for out in ("/etc/affectory", "../elsewhere", "~/x"):
        Path("run.toml").write_text(f'{lines}head = "linear"\nout = "{out}"\n')
        Path("sweep.toml").write_text(f'{lines}out = "{out}"\n[[grid]]\nhead = ["linear"]\n')
        with pytest.raises(ConfigError, match="outside of the working folder"):
            load_config(Path("run.toml"))
        with pytest.raises(ConfigError, match="outside of the working folder"):
            read_sweep(Path("sweep.toml"))
        assert load_config(Path("run.toml"), {"out": out}).out == out
    Path("run.toml").write_text(f'{lines}head = "linear"\nout = "inside/run"\n')
    assert load_config(Path("run.toml")).out == "inside/run"


def test_pictures_stay_in_their_folder(runs_folder, tmp_path, monkeypatch) -> None:
    """A report that calls its corpus by a path, and links that lead out, show nothing of elsewhere."""
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret"
    folder = shutil.copytree(runs_folder / "polarity" / "dummy", tmp_path / "run")
    ids = read_run(folder).part("test").ids.tolist()
    for one in ids:
        if "<" not in one:
            (secret / one).parent.mkdir(parents=True, exist_ok=True)
            image.new("RGB", (8, 8)).save(secret / one)
    report = json.loads((folder / "report.json").read_text())
    for corpus in (str(secret), "../secret", "secret/../secret"):
        (folder / "report.json").write_text(json.dumps(report | {"corpus": corpus}))
        with pytest.raises(AffectoryError, match="no picture"):
            scored_images(read_run(folder), None)
        assert not Pictures.of_corpus(corpus, None).there
    assert scored_images(read_run(folder), secret)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").mkdir()
    (tmp_path / "data" / "linked" / "a.png").symlink_to(secret / next(one for one in ids if "<" not in one))
    assert Pictures.of_corpus("linked", None).of("a.png") is None


def test_a_picture_that_is_a_program_is_not_run(tmp_path, monkeypatch) -> None:
    """Pillow gives PostScript, whatever its name, to another program; a page shows none."""
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    assert Pictures(tmp_path).of("a.png") is None
