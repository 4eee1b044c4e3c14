"""A network that was trained on some images knows their labels: a head is never scored on them."""

import numpy as np
import pytest

import classify
from classify.config import RunConfig
from classify.errors import TaskError
from classify.studies.ablation import ablate
from classify.studies.audit import audit
from classify.studies.cross_corpus import cross_corpus_test
from features_store import BlockSpec, BlockWriter, Index, Labels, Split, Task, write_index

N = 90
PARTS = np.repeat([0, 1, 2], [54, 12, 24])
TASK = Task("t", "single", ("a", "b", "c"))


def make(folder, fitted_on, *, prefix="", corpus="photos"):
    """Write a store with a block of noise, and one of a network that has learned its training images by heart."""
    random = np.random.default_rng(len(prefix))
    y = random.integers(0, 3, N)
    splits = {"default": Split("default", PARTS), "other": Split("other", np.roll(PARTS, 30))}
    ids = np.array([f"{prefix}{i:02}.jpg" for i in range(N)])
    index = Index(ids, {"t": Labels(TASK, y)}, splits, corpus={"name": corpus})
    folder.mkdir()
    write_index(folder / "index.h5", index)
    known = np.where((PARTS == 0)[:, None], np.eye(3)[y], random.normal(size=(N, 3)))
    weights = {"source": "fit:vgg16", "fitted_on": fitted_on}
    for name, vectors, of in (("net.pool", known, weights), ("noise", random.normal(size=(N, 3)), {"source": "?"})):
        with BlockWriter(folder / f"{name}.h5", index, BlockSpec(name, (3,), {"encoder": name, "weights": of})) as w:
            w.write(np.arange(N), vectors)
    return folder


ON_DEFAULT = {"corpus": "photos", "task": "t", "split": "default", "n_train": 54}


def run(store, out, **options):
    return classify.run(store, "t", "linear", out=out, resamples=20, **options)


def test_images_that_it_was_trained_on_are_not_scored(tmp_path):
    """On its own split a run is made, with a word on it; on another split it is refused, with the count."""
    store = make(tmp_path / "s", ON_DEFAULT)
    done = run(store, tmp_path / "own")
    assert any("net.pool" in line and "trained on these training images" in line for line in done.report.warnings)
    seen = {part: int(((np.roll(PARTS, 30) == code) & (PARTS == 0)).sum()) for code, part in ((1, "val"), (2, "test"))}
    assert sum(seen.values()) > 0
    with pytest.raises(TaskError, match=r"network of block 'net.pool' was trained on \d+ of the \d+ (validation|test)"):
        run(store, tmp_path / "other", split="other")
    assert run(store, tmp_path / "without", split="other", blocks=["noise"]).report.warnings == []


def test_nor_cross_validated_nor_judged(tmp_path):
    """A fold of its training images would be told by heart."""
    store = make(tmp_path / "s", ON_DEFAULT)
    for study in (
        lambda: classify.cross_validate(store, "t", "linear"),
        lambda: ablate(RunConfig(str(store), "t", "ridge")),
        lambda: audit(str(store), "t"),
    ):
        with pytest.raises(TaskError, match="trained on 54 of the"):
            study()
    assert classify.cross_validate(store, "t", "linear", blocks=["noise"]).ids.size == 66


def test_a_test_on_its_corpus_leaves_them_out(tmp_path):
    """A head of another corpus is scored on the images that the network of its block has not seen."""
    theirs = make(tmp_path / "theirs", ON_DEFAULT, prefix="x", corpus="drawings")
    tested = run(theirs, tmp_path / "run")
    there = cross_corpus_test(tested.folder, str(make(tmp_path / "s", ON_DEFAULT)), out=str(tmp_path / "there"))
    assert there.report.n_test == N - 54
    assert there.report.transfer["left_out"]["network"] == 54


@pytest.mark.parametrize("fitted_on", [None, [], "photos", {}, {"split": ["default"]}, {**ON_DEFAULT, "split": "x"}])
def test_passports_that_say_nothing_of_it(tmp_path, fitted_on):
    """What does not name a split of the corpus is of another network."""
    assert run(make(tmp_path / "s", fitted_on), tmp_path / "r", split="other").report.warnings == []
