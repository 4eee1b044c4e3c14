"""The novelty of a vector: flagged as often as it says, where it should be, kept with the run, and read with care."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save
from typer.testing import CliRunner

from classify.__main__ import app
from classify.config import RunConfig
from classify.data.rows import ArrayRows
from classify.errors import BundleError, HeadError, ModelError, RunError
from classify.evaluation.novelty import Novelty, fit_novelty, read_novelty
from classify.heads import HEADS
from classify.inference.bundle import open_model, write_bundle
from classify.inference.model import run_model
from classify.runs.folder import Run, read_run
from classify.runs.train import run
from classify.studies.cross_corpus import cross_corpus_test
from features_store.schema import Labels, Split, Task
from tests.bench.worlds import vectors

TASK = Task("t", "single", ("a", "b"))
BLOCKS = ["novelty.json", "novelty.safetensors"]


def fitted(*blocks: np.ndarray, groups: np.ndarray | None = None, seed: int = 0) -> Novelty:
    """Fit on blocks named b0, b1, ..."""
    rows = {f"b{i}": ArrayRows(np.asarray(block, dtype=np.float32)) for i, block in enumerate(blocks)}
    return fit_novelty(rows, TASK, np.arange(len(blocks[0])) % 2, groups, seed=seed)


@pytest.mark.parametrize(
    ("n", "n_features", "n_blocks", "low", "high"),
    [(1000, 20, 1, 0.004, 0.017), (300, 400, 1, 0.001, 0.02), (300, 60, 3, 0.001, 0.02), (40, 200, 2, 0, 0.012)],
)
def test_one_new_row_in_a_hundred_is_flagged(n, n_features, n_blocks, low, high) -> None:
    """Also with several blocks; the ends are four Monte Carlo errors of five thresholds. Few rows: at most so many."""
    shares = []
    for seed in range(5):
        draw = vectors(n_features * n_blocks, seed)
        known, new = np.split(draw(n), n_blocks, axis=1), draw(1500)
        found = fitted(*known, seed=seed)
        told = found.share(ArrayRows(new))
        assert told is not None
        assert told["n"] == 1500
        assert found.expected == pytest.approx(0.01, abs=0.004)
        shares.append(told["share"])
    assert low <= np.mean(shares) <= high


@pytest.mark.parametrize(("n_classes", "n_each"), [(28, 2), (6, 40)])
def test_copies_of_training_rows_are_not_unlike(n_classes: int, n_each: int) -> None:
    """Where each class lies in a direction of its own, which the fold without it does not see."""
    rows = np.eye(n_classes, dtype=np.float32).repeat(n_each, axis=0)
    told = fitted(rows).share(ArrayRows(rows))
    assert told is not None
    assert told["flagged"] == 0


@pytest.mark.parametrize(("n", "n_features"), [(400, 16), (120, 500)])
def test_another_world_is_flagged(n, n_features) -> None:
    """Unrelated vectors, of the same mean and deviation in every column, in one block: it is named."""
    draw, random = vectors(2 * n_features, 3), np.random.default_rng(5)
    known = draw(n)
    found = fitted(known[:, :n_features], known[:, n_features:])
    new = draw(50)
    strange = new.copy()
    own = known[:, n_features:]
    strange[:, n_features:] = own.mean(axis=0) + own.std(axis=0) * random.standard_t(2, (50, n_features))
    ratios = found.ratios(strange)
    assert (ratios["b1"] > 1).mean() > 0.9
    assert (ratios["b0"] > 1).mean() < 0.1
    far = new[0].copy()
    far[n_features:] += 9 * own.std(axis=0)
    value, note = found.judge(far)
    assert value is not None
    assert value > 1
    start = f"unlike the training images in block 'b1' ({value:.3g} times the threshold); "
    assert note == start + "do not trust this prediction"


@pytest.mark.parametrize(("n", "n_features"), [(400, 16), (120, 500)])
def test_what_lies_at_the_centre_is_flagged(n, n_features) -> None:
    """No image is the mean of all: a vector nearer to it than any of them is unlike them, and the note says so."""
    known = vectors(n_features, 3)(n)
    found = fitted(known)
    value, note = found.judge(known.mean(axis=0))
    assert value is not None
    assert np.isfinite(value)
    start = f"unlike the training images in block 'b0' ({value:.3g} times too near their mean); "
    assert note == start + "do not trust this prediction"


def test_alone_and_together_are_equal() -> None:
    draw = vectors(300, 1)
    found, new = fitted(draw(150)), draw(40)
    together = found.ratios(new)["b0"]
    assert [found.judge(row)[0] for row in new] == pytest.approx(together, rel=1e-9)


def test_the_files_are_small_and_come_back_equal() -> None:
    """11,368 columns keep 64 directions; what is too wide keeps fewer, or is not measured and says so."""
    random = np.random.default_rng(0)
    found = fitted(random.normal(size=(330, 11_368)))
    files = found.files()
    assert list(files) == BLOCKS
    assert sum(map(len, files.values())) < 5_000_000
    assert len(found.blocks[0].variances) == 64
    again, new = read_novelty(files, ["b0"], 11_368), random.normal(size=(3, 11_368)).astype(np.float32)
    assert again is not None
    assert np.array_equal(again.ratios(new)["b0"], found.ratios(new)["b0"])
    assert again.files() == files
    wide = fitted(random.normal(size=(12, 200_000)), random.normal(size=(12, 300_000)))
    assert sum(map(len, wide.files().values())) < 5_000_000
    assert list(wide.ratios(np.zeros((1, 500_000)))) == ["b0"]
    assert wide.unmeasured == {"b1": "300000 columns are too many to keep"}


def test_columns_that_do_not_vary() -> None:
    """They cost no number; what differs in one is seen, and a block of nothing else is not measured."""
    random = np.random.default_rng(0)
    known = random.normal(size=(80, 12)).astype(np.float32)
    known[:, 3], known[:, 4], known[:, 5] = 0, 7.3, 3e38
    known[:, 6] = np.where(np.arange(80) == 9, 2.0, 1.0)
    found = fitted(known, np.full((80, 5), 0.1))
    ratios = found.ratios(np.hstack([known, np.full((80, 5), 0.1)]))
    assert list(ratios) == ["b0"]
    assert np.isfinite(ratios["b0"]).all()
    assert (ratios["b0"] > 1).sum() <= 4
    assert found.unmeasured == {"b1": "it is the same for all training images"}
    other = np.hstack([known[0], np.zeros(5)])
    other[4] = 50
    assert (found.judge(other)[0] or 0) > 1
    nothing = fitted(np.ones((80, 5)))
    assert nothing.judge(np.zeros(5)) == (None, "novelty not measured: 'b0': it is the same for all training images")
    assert nothing.share(ArrayRows(np.ones((4, 5)))) is None


@pytest.mark.parametrize(
    ("n", "groups", "words"),
    [(9, None, "9 training images; at least 10"), (40, np.arange(40) // 8, "5 training groups of images; at least 10")],
)
def test_few_training_images_measure_nothing(n, groups, words) -> None:
    found = fitted(np.random.default_rng(0).normal(size=(n, 4)), groups=groups)
    value, note = found.judge(np.full(4, 1e9))
    assert value is None
    assert words in note
    again = read_novelty(found.files(), ["b0"], 4)
    assert again is not None
    assert again.judge(np.zeros(4)) == (None, note)


def test_groups_do_not_hide_what_is_new() -> None:
    """Copies of an image in other folds would draw the thresholds down to their own distance."""
    draw = vectors(400, 2)
    known = np.repeat(draw(75), 4, axis=0)
    found = fitted(known + 1e-4 * known.std(axis=0), groups=np.arange(300) // 4)
    assert (found.ratios(draw(400))["b0"] > 1).mean() < 0.1


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_has_it(store, tmp_path, head) -> None:
    block = "alpha.map" if HEADS[head].maps else "alpha.pool"
    quick = {"epochs": 2} if head in ("mlp", "moe", "conv") else {"n_rounds": 3} if head == "gbm" else {}
    done = run(RunConfig(str(store), "polarity", head, (block,), settings=quick, resamples=20, out=str(tmp_path / "r")))
    told = done.report["novelty"]
    assert (told["n_train"], list(told["directions"])) == (done.report["n_train"], [block])
    assert sorted(told["parts"]) == ["test", "validation"]
    assert told["parts"]["test"]["n"] == done.report["n_test"]
    assert told["parts"]["test"]["share"] < 0.1
    assert set(BLOCKS) < set(json.loads((done.folder / "model" / "head.json").read_text())["files"])
    model = run_model(done)
    vector = np.full(model.head.n_features_in_, 40, dtype=np.float32)
    prediction = model.predict("a.jpg", model.scores(vector[None])[0], vector)
    assert "do not trust this prediction" in prediction.novelty_note


@pytest.mark.parametrize("task", ["polarity", "evokes", "valence", "affect"])
def test_a_bundle_carries_it(runs_folder, tmp_path, task) -> None:
    done = read_run(runs_folder / task / "linear")
    names = write_bundle(done, tmp_path / "b.zip")
    assert {f"model/{name}" for name in BLOCKS} < set(names)
    ours, theirs = run_model(done), open_model(tmp_path / "b.zip")
    vector = np.random.default_rng(0).normal(size=12).astype(np.float32)
    assert ours.novelty is not None
    assert theirs.novelty is not None
    assert ours.novelty.judge(vector) == theirs.novelty.judge(vector)
    assert ours.predict("a", np.zeros(len(ours.task.classes)), vector).novelty == ours.novelty.judge(vector)[0]


def _copied(made: Run, folder: Path) -> Run:
    return read_run(shutil.copytree(made.folder, folder))


def _replaced(made: Run, files: dict[str, bytes | None]) -> None:
    """Lay files into the model of a run, and write their digests into ``head.json``; None takes one away."""
    record = json.loads((made.folder / "model" / "head.json").read_text())
    for name, data in files.items():
        if data is None:
            (made.folder / "model" / name).unlink()
            del record["files"][name]
        else:
            (made.folder / "model" / name).write_bytes(data)
            record["files"][name] = hashlib.sha256(data).hexdigest()
    (made.folder / "model" / "head.json").write_text(json.dumps(record))


@pytest.mark.parametrize("name", BLOCKS)
def test_a_changed_file_is_refused(polarity_run, tmp_path, name) -> None:
    made = _copied(polarity_run, tmp_path / "run")
    path = made.folder / "model" / name
    path.write_bytes(path.read_bytes()[:-2] + b"\x01\n")
    with pytest.raises(HeadError, match=rf"{name} is not the file that was saved"):
        run_model(made)
    with pytest.raises((HeadError, BundleError), match=name):
        write_bundle(made, tmp_path / "b.zip")


def _arrays(files: dict[str, bytes], **changed: np.ndarray) -> dict[str, bytes]:
    arrays = load(files["novelty.safetensors"])
    return {"novelty.safetensors": save(arrays | {f"0.{key}": value for key, value in changed.items()})}


def _about(files: dict[str, bytes], **changed: object) -> dict[str, bytes]:
    return {"novelty.json": json.dumps(json.loads(files["novelty.json"]) | changed).encode()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: {"novelty.json": b"{"}, "is not valid JSON"),
        (lambda f: {"novelty.json": b"[]"}, "an object"),
        (lambda f: {"novelty.json": None}, "is missing"),
        (lambda f: {"novelty.safetensors": None}, "arrays are not those"),
        (lambda f: {"novelty.safetensors": b"\xff" * 64}, "damaged"),
        (lambda f: {"novelty.safetensors": bytes(5_000_001)}, "more than 5000000 bytes"),
        (lambda f: _about(f, format_version=2), "format_version"),
        (lambda f: _about(f, expected=2), "expected"),
        (lambda f: _about(f, blocks=[]), "blocks"),
        (lambda f: _arrays(f, scale=np.zeros(12)), "type or range"),
        (lambda f: _arrays(f, mean=np.full(12, np.nan)), "type or range"),
        (lambda f: _arrays(f, mean=np.zeros(12, np.float32)), "type or range"),
        (lambda f: _arrays(f, directions=np.zeros((3, 11), np.float32)), "type or range"),
        (lambda f: _arrays(f, directions=np.full((3, 12), 1e30, np.float32), variances=np.ones(3)), "type or range"),
        (lambda f: _arrays(f, more=np.zeros(1)), "arrays are not those"),
        (lambda f: fitted(np.random.default_rng(0).normal(size=(40, 12))).files(), "alpha.pool"),
        (lambda f: {n: d.replace(b"12,", b"13,") for n, d in f.items() if n == "novelty.json"}, "12 features"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(polarity_run, tmp_path, change, words) -> None:
    """In one sentence, also where the digests were made anew."""
    made = _copied(polarity_run, tmp_path / "run")
    _replaced(made, change({name: (made.folder / "model" / name).read_bytes() for name in BLOCKS}))
    with pytest.raises(ModelError, match=words) as caught:
        run_model(made)
    assert "novelty" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_of_an_earlier_version_is_read(polarity_run, tmp_path) -> None:
    made = _copied(polarity_run, tmp_path / "run")
    _replaced(made, dict.fromkeys(BLOCKS))
    report = json.loads((made.folder / "report.json").read_text())
    del report["novelty"]
    (made.folder / "report.json").write_text(json.dumps(report))
    made = read_run(made.folder)
    assert made.report["novelty"] is None
    write_bundle(made, tmp_path / "b.zip")
    for model in (run_model(made), open_model(tmp_path / "b.zip")):
        prediction = model.predict("a.jpg", np.array([0.5, 0.25, 0.25]), np.zeros(12, dtype=np.float32))
        assert (prediction.novelty, prediction.novelty_note) == (None, "novelty not recorded")


@pytest.mark.parametrize("value", [7, {"parts": {"test": {"n": 3, "flagged": 1, "share": 4}}}, {"directions": [1]}])
def test_a_report_with_odd_novelty_is_refused(polarity_run, tmp_path, value) -> None:
    made = _copied(polarity_run, tmp_path / "run")
    report = json.loads((made.folder / "report.json").read_text())
    (made.folder / "report.json").write_text(json.dumps(report | {"novelty": value}))
    with pytest.raises(RunError, match=r"report\.novelty"):
        read_run(made.folder)


def test_another_corpus_is_called_unlike(make_store, tmp_path) -> None:
    """The share of flagged images of a cross-corpus test stands in its report, with a warning where it is large."""
    draw, random = vectors(30, 4), np.random.default_rng(0)
    parts = Split("default", np.repeat([0, 2], [150, 50]))
    labels = Labels(TASK, random.integers(0, 2, 200))
    ours, x = make_store({"a.pool": draw(200)}, [labels], [parts]), draw(220)
    x[:80] += 9 * x.std(axis=0)
    theirs = make_store({"a.pool": x}, [Labels(TASK, random.integers(0, 2, 220))], prefix="other/")
    made = run(RunConfig(str(ours), "t", "linear", resamples=20, out=str(tmp_path / "run")))
    done = cross_corpus_test(made.folder, str(theirs), resamples=20, out=str(tmp_path / "other"))
    assert 80 <= done.report["novelty"]["parts"]["test"]["flagged"] <= 90
    assert any("220 test images are unlike the training images" in text for text in done.report["warnings"])
    assert not any("unlike" in text for text in made.report["warnings"])
    assert (done.folder / "model" / "novelty.json").read_bytes() == (
        made.folder / "model" / "novelty.json"
    ).read_bytes()


def test_pictures_of_another_world(pictured_runs, pictures, tmp_path) -> None:
    """Noise and single colours are flagged in text, CSV and JSON; pictures of the corpus are not."""
    image = pytest.importorskip("PIL.Image")
    random, place = np.random.default_rng(0), str(pictured_runs["svm"].folder)
    noise = random.integers(0, 256, (96, 96, 3))
    for name, pixels in {"noise": noise, "grey": np.full((96, 96, 3), 128), "black": np.zeros((96, 96, 3))}.items():
        image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{name}.png")
    known = sorted(pictures.glob("warm/*.png"))[0]
    (tmp_path / "broken.png").write_text("no picture")
    asked = [*(str(tmp_path / f"{name}.png") for name in ("noise", "grey", "black", "broken")), str(known)]
    runner, limit = CliRunner(), ["--max-failed", "1"]
    told = runner.invoke(app, ["predict", place, *asked, "--json", *limit])
    lines = [json.loads(line) for line in told.stdout.splitlines() if line.startswith("{")]
    assert [(line["novelty"] or 0) > 1 for line in lines] == [True, True, True, False, False]
    assert all("do not trust this prediction" in line["novelty_note"] for line in lines[:3])
    assert [line["novelty_note"] for line in lines[3:]] == [None, None]
    told = runner.invoke(app, ["predict", place, *asked, "--csv", *limit])
    rows = list(csv.DictReader(io.StringIO(told.stdout[told.stdout.index("image,") :])))
    assert [row["novelty"] for row in rows[:5]] == ["" if x["novelty"] is None else str(x["novelty"]) for x in lines]
    told = runner.invoke(app, ["predict", place, *asked, *limit])
    assert told.stdout.count("do not trust this prediction") == 3
    assert told.stdout.count("; novelty ") == 4
