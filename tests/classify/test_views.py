"""Views: a random one for each pass of training, the canonical one for everything else; and the second fit."""

import numpy as np
import pytest
import torch

from classify.config import RunConfig
from classify.data.rows import RowMatrix, ViewedRows, n_views
from classify.errors import ConfigError
from classify.heads import make_head
from classify.heads.persistence import load_head
from classify.runs.train import run
from features_store import BlockSpec, BlockWriter, Index, Labels, Split, Status, Task, open_store, write_index

N, VIEWS = 90, 3
POLARITY = Task("polarity", "single", ("negative", "positive"))


@pytest.fixture(scope="module")
def viewed(tmp_path_factory):
    """Return a store: ``many.pool`` says row and view in its first two values, ``one.pool`` has a single view."""
    folder, random = tmp_path_factory.mktemp("views") / "viewed", np.random.default_rng(0)
    folder.mkdir()
    y = np.arange(N) % 2
    parts = np.resize([0, 0, 1, 0, 2, 0], N)
    labels = {"polarity": Labels(POLARITY, y.astype(np.int16))}
    index = Index(np.array([f"{i}.png" for i in range(N)]), labels, {"default": Split("default", parts)})
    write_index(folder / "index.h5", index)
    spec = BlockSpec("many.pool", (6,), {"encoder": "many"}, n_views=VIEWS)
    with BlockWriter(folder / "many.pool.h5", index, spec) as writer:
        for view in range(VIEWS):
            vectors = random.normal(size=(N, 6)) + y[:, None]
            vectors[:, 0], vectors[:, 1] = np.arange(N), view
            rows = np.setdiff1d(np.arange(N), [5] if view == 2 else [])
            writer.write(rows, vectors[rows], view=view)
        writer.fail([5], Status.TRUNCATED, view=2)
    with BlockWriter(folder / "one.pool.h5", index, BlockSpec("one.pool", (2,), {"encoder": "one"})) as writer:
        writer.write(np.arange(N), np.stack([np.arange(N), np.full(N, 7)], axis=1))
    return folder


def test_rows_are_canonical_until_drawn_and_then_every_view_comes(viewed):
    """Values are those of the drawn view; a failed view and a block with one view stay canonical."""
    store = open_store(viewed)
    blocks = ("many.pool", "one.pool")
    assert n_views(store, blocks) == VIEWS
    rows = ViewedRows(store, blocks, np.arange(N))
    everything = np.arange(N)
    assert np.array_equal(rows.take(everything), RowMatrix(store, blocks).take(everything))
    generator, seen = torch.Generator().manual_seed(0), []
    for _ in range(40):
        rows.redraw(generator)
        x = rows.take(everything)
        assert np.array_equal(x[:, 0], everything)
        assert np.array_equal(x[:, 6:], np.stack([everything, np.full(N, 7)], axis=1))
        assert x[5, 1] in (0, 1)
        seen.append(x[:, 1].copy())
        out = np.empty((4, 8), np.float32)
        chosen = np.array([80, 3, 5, 41])
        assert np.array_equal(rows.take(chosen, out=out), x[chosen])
    share = np.bincount(np.concatenate(seen).astype(int), minlength=VIEWS) / (40 * N)
    assert np.allclose(share, 1 / VIEWS, atol=0.03)
    cut = rows[np.array([3, 9])]
    assert isinstance(cut, ViewedRows)
    assert cut.take(np.arange(2))[:, 0].tolist() == [3, 9]


class Watched(ViewedRows):
    """Notes which views a head reads, pass by pass."""

    passes: list = []  # noqa: RUF012

    def redraw(self, generator):
        super().redraw(generator)
        self.passes.append(self.drawn.copy())


def test_training_draws_anew_each_pass_and_is_seeded(viewed):
    """As many draws as epochs, all different, and equal for an equal seed; the projection keeps out of it."""
    store, y = open_store(viewed), np.arange(N) % 2
    states = []
    for _ in range(2):
        Watched.passes = []
        head = make_head("mlp", "single", hidden=[4], epochs=5, optimizer="sgd", project="always", random_state=1)
        head.fit(Watched(store, ("many.pool",), np.arange(N)), y)
        assert len({one.tobytes() for one in Watched.passes}) == 5
        states.append((head.predict_proba(RowMatrix(store, ("many.pool",))), [one.tolist() for one in Watched.passes]))
    assert np.array_equal(states[0][0], states[1][0])
    assert states[0][1] == states[1][1]
    Watched.passes = []
    make_head("svm", "single").fit(Watched(store, ("many.pool",), np.arange(N)), y)
    assert Watched.passes == []


def test_a_run_trains_on_views_and_scores_the_canonical_one(viewed, tmp_path):
    """The scores of the run are those of its head on view 0."""
    settings = {"hidden": [4], "epochs": 3}
    done = run(RunConfig(str(viewed), "polarity", "mlp", settings=settings, resamples=20, out=str(tmp_path / "run")))
    head, store = load_head(done.folder / "model"), open_store(viewed)
    test = done.predictions["test"]
    rows = np.array([int(name.removesuffix(".png")) for name in test.ids])
    said = head.predict_proba(store.matrix(("many.pool", "one.pool"), rows))
    assert np.allclose(test.y_score, said, atol=1e-6)


def test_a_run_trains_on_the_canonical_view_where_asked_to(viewed, tmp_path):
    """With ``views = "canonical"`` the head is the one that is fitted by hand on the images as they are."""
    settings, store = {"hidden": [4], "epochs": 3}, open_store(viewed)
    asked = {"settings": settings, "resamples": 20, "views": "canonical", "out": str(tmp_path / "run")}
    done = run(RunConfig(str(viewed), "polarity", "mlp", **asked))
    of_part = {code: np.flatnonzero(store.splits["default"].values == code) for code in range(3)}
    x = {code: store.matrix(("many.pool", "one.pool"), rows) for code, rows in of_part.items()}
    y = {code: rows % 2 for code, rows in of_part.items()}
    by_hand = make_head("mlp", "single", random_state=0, **settings).fit(x[0], y[0], validation=(x[1], y[1]))
    assert np.allclose(by_hand.predict_proba(x[2]), done.predictions["test"].y_score, atol=1e-6)
    assert done.report["history"] == by_hand.history_
    with pytest.raises(ConfigError, match="views is 'some'; valid: all, canonical, everywhere"):
        RunConfig(str(viewed), "polarity", "mlp", views="some")


def test_validation_images_are_distorted_where_asked_to(viewed, tmp_path):
    """With ``views = "everywhere"`` validation is scored by a drawn view of each image, test as it is."""
    settings, store = {"hidden": [4], "epochs": 3}, open_store(viewed)
    asked = {"settings": settings, "resamples": 20, "blocks": ("many.pool",), "calibration": "none"}
    runs = [
        run(RunConfig(str(viewed), "polarity", "mlp", **asked, views=views, out=str(tmp_path / f"{i}")))
        for i, views in enumerate(("everywhere", "everywhere", "all"))
    ]
    said = [one.predictions["validation"].y_score for one in runs]
    assert np.array_equal(said[0], said[1])
    head = load_head(runs[0].folder / "model")
    rows = np.flatnonzero(store.splits["default"].values == 1)
    of_view = [
        head.predict_proba(store.matrix(["many.pool"], rows, view=v)) for v in range(store.block("many.pool").shape[1])
    ]
    matches = np.array([np.isclose(said[0], one, atol=1e-6).all(axis=1) for one in of_view])
    assert matches.any(axis=0).all()
    assert not matches[0].all()
    test = np.flatnonzero(store.splits["default"].values == 2)
    assert np.allclose(
        head.predict_proba(store.matrix(["many.pool"], test)), runs[0].predictions["test"].y_score, atol=1e-6
    )


# ---- the second fit -------------------------------------------------------------------------------------------------


def test_refit_takes_the_best_epochs_and_both_parts(store, tmp_path):
    """The kept head is one fitted by hand on train + validation for the best number of epochs; only test is its."""
    settings = {"hidden": [6], "epochs": 12, "learning_rate": 0.05, "patience": 3}
    asked = {"blocks": ("alpha.pool",), "resamples": 20, "settings": settings}
    plain = run(RunConfig(str(store), "polarity", "mlp", **asked, out=str(tmp_path / "plain")))
    again = run(RunConfig(str(store), "polarity", "mlp", **asked, refit=True, out=str(tmp_path / "again")))
    losses = [record["validation_loss"] for record in plain.report["history"]]
    assert again.report["refit"]["epochs"] == int(np.argmin(losses)) + 1
    assert again.report["refit"]["n"] == plain.report["n_train"] + plain.report["n_validation"]
    for part in ("train", "validation"):
        assert np.array_equal(again.predictions[part].y_score, plain.predictions[part].y_score)
    assert not np.array_equal(again.predictions["test"].y_score, plain.predictions["test"].y_score)

    opened = open_store(store)
    ids = np.concatenate([plain.predictions[part].ids for part in ("train", "validation")])
    y = np.concatenate([plain.predictions[part].y_true for part in ("train", "validation")])
    x = opened.matrix(["alpha.pool"], [opened.ids.tolist().index(name) for name in ids])
    by_hand = make_head("mlp", "single", random_state=0, **{**settings, "epochs": again.report["refit"]["epochs"]})
    by_hand.fit(x, y)
    test = again.predictions["test"]
    x = opened.matrix(["alpha.pool"], [opened.ids.tolist().index(name) for name in test.ids])
    assert np.allclose(by_hand.predict_proba(x), test.y_score, atol=1e-5)
    assert any("fitted again" in text for text in again.report["warnings"])


def test_refit_without_early_stopping_is_as_long_as_asked(store, tmp_path):
    """As in the papers that give a number of epochs; boosted trees keep their best number of rounds."""
    asked = {"blocks": ("alpha.pool",), "resamples": 20, "refit": True}
    settings = {"hidden": [4], "epochs": 3, "patience": None}
    done = run(RunConfig(str(store), "polarity", "mlp", settings=settings, **asked, out=str(tmp_path / "mlp")))
    assert len(done.report["history"]) == 3
    settings = {"n_rounds": 60, "learning_rate": 0.3, "patience": 2, "n_jobs": 1}
    done = run(RunConfig(str(store), "polarity", "gbm", settings=settings, **asked, out=str(tmp_path / "gbm")))
    assert 1 <= done.report["refit"]["n_rounds"] < 60


def test_refit_needs_a_validation_part(store, tmp_path):
    """Without one there is nothing to add."""
    config = RunConfig(str(store), "polarity", "linear", blocks=("alpha.pool",), split="holdout", refit=True)
    with pytest.raises(ConfigError, match=r"no validation images.*train, test"):
        run(RunConfig(**{**vars(config), "out": str(tmp_path / "run")}))


def test_a_head_refuses_other_blocks(store):
    """Same width or not, both are named; plain arrays are checked by width alone."""
    opened = open_store(store)
    rows, y = np.arange(60, 120), np.arange(60) % 2
    head = make_head("linear", "single").fit(RowMatrix(opened, ["alpha.pool", "beta.pool"], rows), y)
    with pytest.raises(
        ValueError, match=r"blocks alpha.pool, beta.pool, in this order, and X has beta.pool, alpha.pool"
    ):
        head.predict(RowMatrix(opened, ["beta.pool", "alpha.pool"], rows))
    assert len(head.predict(opened.matrix(["alpha.pool", "beta.pool"], rows))) == 60
