"""The search: on validation only, gone on with after an interruption, its end read once."""

import json
from contextlib import closing

import numpy as np
import pytest

from classify.config import RunConfig
from classify.data.rows import RowMatrix
from classify.errors import ConfigError, HeadError, RunError
from classify.heads import HEADS, head_class
from classify.runs.time_budget import UnfinishedError
from classify.studies import search as searching
from classify.studies.search import Journal, search
from features_store.errors import LockedError

pytest.importorskip("optuna")


def config_of(store, folder, head="svm", **more):
    """Return what is searched."""
    return RunConfig(str(store), "polarity", head, blocks=("alpha.pool",), resamples=20, out=str(folder), **more)


@pytest.fixture(scope="module")
def done(store, tmp_path_factory):
    """Return a finished search of four trials, and the rows that it read before its end."""
    folder, read = tmp_path_factory.mktemp("search") / "svm-search", []
    take, final = RowMatrix.take, searching.run_experiment

    def watched(self, positions, out=None):
        read.append(self.rows[positions])
        return take(self, positions, out)

    seen = {}

    def at_the_end(*args, **kwargs):
        seen["before"] = np.unique(np.concatenate(read))
        return final(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowMatrix, "take", watched)
        patch.setattr(searching, "run_experiment", at_the_end)
        run = search(config_of(store, folder), trials=4)
    return folder, run, seen["before"]


def test_the_best_trial_becomes_a_run(done):
    """Four trials, the best by validation; its options are the run's."""
    folder, run, _ = done
    record = json.loads((folder / "trials.json").read_text())
    assert [one["state"] for one in record["trials"]] == ["COMPLETE"] * 4
    best = max(record["trials"], key=lambda one: one["value"])
    assert record["trials"][record["best"]]["value"] == best["value"]
    assert run.folder == folder / "best"
    assert run.report["parameters"]["C"] == best["options"]["C"] or record["best"] != best["number"]
    assert run.report["metrics"]["validation"]["weighted_f1"]["value"] == pytest.approx(best["value"])
    assert "test" in run.report["metrics"]


def test_no_trial_reads_a_test_image(done, store):
    """Until the run at the end only rows of the training and validation parts were read."""
    from features_store import open_store

    _, run, before = done
    opened = open_store(store)
    test = {opened.ids.tolist().index(name) for name in run.predictions["test"].ids}
    assert len(before)
    assert not test & set(before.tolist())


def test_a_finished_search_is_not_gone_on_with_unasked(done, store):
    """Its test part was read; more trials would choose after looking."""
    folder, _, _ = done
    with pytest.raises(RunError, match=r"choose after looking.*--force"):
        search(config_of(store, folder), trials=6)


def test_an_interrupted_search_goes_on(store, tmp_path, monkeypatch):
    """The journal keeps what was done; the number of trials is that of the whole search."""
    folder = tmp_path / "gbm-search"
    config = config_of(store, folder, "gbm", settings={"n_rounds": 4, "n_jobs": 1, "min_leaf": 2})

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(searching, "run_experiment", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search(config, trials=2)
    notes = []
    run = search(config, trials=5, notify=notes.append)
    assert notes[0] == "2 trials are there already"
    trials = json.loads((folder / "trials.json").read_text())["trials"]
    assert len(trials) == 5
    assert all("min_leaf" not in one["options"] for one in trials)
    assert len({json.dumps(one["options"]) for one in trials}) == 5
    assert run.report["parameters"]["n_rounds"] == 4
    assert not any(path.suffix in (".pkl", ".pickle") for path in folder.rglob("*"))
    other = config_of(store, tmp_path / "gbm-search", "gbm", seed=3)
    (folder / "best").rename(tmp_path / "aside")
    with pytest.raises(RunError, match="another search"):
        search(other, trials=5)


def test_a_resumed_search_draws_as_one_that_was_not_interrupted(done, store, tmp_path, monkeypatch):
    """Two trials, then two more, are the four of one search."""
    config = config_of(store, tmp_path / "svm-search")
    with monkeypatch.context() as patch:
        patch.setattr(searching, "run_experiment", lambda *args, **kwargs: None)
        search(config, trials=2)
    search(config, trials=4)
    assert (tmp_path / "svm-search" / "trials.json").read_bytes() == (done[0] / "trials.json").read_bytes()


def test_networks_are_searched_with_layers_as_lists(store, tmp_path):
    """Layers are text in the journal and sizes in the run; a trial that diverges does not end the search."""
    settings = {"epochs": 1, "learning_rate": 0.01, "batch_size": 64}
    config = config_of(store, tmp_path / "mlp-search", "mlp", settings=settings, seed=2**32 - 1)
    run = search(config, trials=2)
    assert all(isinstance(size, int) for size in run.report["parameters"]["hidden"])


@pytest.mark.parametrize("head", HEADS)
def test_every_space_is_of_options(head):
    """What is searched are options of the head."""
    from classify.heads import head_options

    assert set(head_class(head, "single").search_space) <= set(head_options(head, "single"))


def test_what_cannot_be_searched_is_said(store, tmp_path):
    """A head without a space, a split without validation."""
    with pytest.raises(ConfigError, match=r"'dummy' has nothing to search; heads that have: mlp"):
        search(config_of(store, tmp_path / "a", "dummy"), trials=1)
    with pytest.raises(ConfigError, match="no validation images"):
        search(config_of(store, tmp_path / "b", split="holdout"), trials=1)
    with pytest.raises(ConfigError, match="is set"):
        search(config_of(store, tmp_path / "c", settings={"C": 1.0, "kernel": "rbf"}), trials=1)


def test_only_scored_trials_count_and_a_journal_that_was_cut_off_is_mended(store, tmp_path, monkeypatch):
    """Killed, interrupted and failed trials are tried anew; the test part is read when all are scored."""
    folder = tmp_path / "search"
    config = config_of(store, folder, "gbm", settings={"n_rounds": 2, "n_jobs": 1, "min_leaf": 2})
    fit, fits = searching.head_scores, []

    def failing(*args):
        fits.append(1)
        if len(fits) == 2:
            raise HeadError("it failed")
        if len(fits) == 3:
            raise KeyboardInterrupt
        return fit(*args)

    with monkeypatch.context() as patch:
        patch.setattr(searching, "head_scores", failing)
        with pytest.raises(KeyboardInterrupt):
            search(config, trials=3)
    assert not (folder / "best").exists()
    journal = folder / "journal.log"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 5, "wor')
    notes = []
    search(config, trials=3, notify=notes.append)
    assert "cut off" in notes[0]
    assert notes[1] == "1 trials are there already"
    states = [one["state"] for one in json.loads((folder / "trials.json").read_text())["trials"]]
    assert states.count("COMPLETE") == 3
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"nonsense\n", *lines[1:]]))
    with pytest.raises(RunError, match="cannot be read from line 2"):
        search(config, trials=4, force=True)


def test_a_search_whose_trials_all_fail_reads_no_test_image(store, tmp_path, monkeypatch):
    """It is unfinished, says so, and stops after twice as many trials as were asked for."""
    fits = []

    def failing(*args):
        fits.append(1)
        raise HeadError("it failed")

    monkeypatch.setattr(searching, "head_scores", failing)
    config = config_of(store, tmp_path / "s", "gbm", settings={"n_rounds": 2, "n_jobs": 1, "min_leaf": 2})
    with pytest.raises(UnfinishedError, match="only 0 of 2 trials could be scored"):
        search(config, trials=2)
    assert len(fits) == 4
    assert not (tmp_path / "s" / "best").exists()


HEADER = '{"format": "affectory-search", "format_version": 1, "identity": "x"}'
TRIAL = '{"number": 0, "state": "COMPLETE", "value": 0.5, "params": {"C": 1.0}}'


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['{"op_code": 0, "worker_id": "a", "study_name": "s"}', TRIAL], "from line 1 on .*lacks format"),
        ([HEADER.replace("1,", "9,"), TRIAL], "from line 1 on .*format_version"),
        ([HEADER.replace('"x"', '"y"'), TRIAL], "of another search"),
        ([HEADER, TRIAL.replace("0.5", "1e999"), TRIAL], "from line 2 on .*too large a number"),
        ([HEADER, TRIAL.replace("COMPLETE", "RUNNING"), TRIAL], "from line 2 on .*state"),
        ([HEADER, TRIAL.replace('{"C": 1.0}', "[1]"), TRIAL], "from line 2 on .*an object"),
        ([HEADER, "[" * 100_000, TRIAL], "from line 2 on .*nested too deeply"),
    ],
)
def test_a_journal_of_anybody_is_read_through_its_schema(tmp_path, lines, words):
    """One sentence with the line; the lock is released."""
    path = tmp_path / "journal.log"
    path.write_text("\n".join(lines) + "\n")
    for _ in range(2):
        with pytest.raises(RunError, match=words):
            Journal(path, "x", print)


def test_a_journal_has_one_writer(tmp_path):
    """A second search of the same folder is refused while the first one runs."""
    with closing(Journal(tmp_path / "journal.log", "x", print)) as journal:
        journal.append({"number": 0, "state": "COMPLETE", "value": 0.5, "params": {"C": 1.0}})
        with pytest.raises(LockedError):
            Journal(tmp_path / "journal.log", "x", print)
    with closing(Journal(tmp_path / "journal.log", "x", print)) as journal:
        assert [one["value"] for one in journal.trials] == [0.5]
