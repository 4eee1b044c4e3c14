"""Training that is stopped and gone on with ends in the same bits as training that never stopped."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from classify.config import RunConfig
from classify.errors import ConfigError, RunError
from classify.heads import make_head
from classify.heads.persistence import load_head
from classify.heads.training import Checkpoint
from classify.runs.time_budget import Interruption, UnfinishedError, parse_duration
from classify.runs.train import run

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(90, 12)).astype(np.float32)
Y = np.digitize(X[:, 0] + 0.3 * RANDOM.normal(size=90), [-0.5, 0.5])
EPOCHS = 9
OPTIMIZERS = {
    "adam": {"optimizer": "adam", "weight_decay": 0.01},
    "nadam": {"optimizer": "nadam", "patience": None, "keep": "last"},
    "sgd": {"optimizer": "sgd", "decay": 0.01, "project": "never", "patience": 3},
    "projected": {"optimizer": "sgd", "weight_decay": 0.01, "project": "always"},
}


class Clock:
    """A clock that moves on by one second each time it is looked at during an epoch."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def head_of(name, **options):
    """Return a small network, with dropout, so that every generator matters."""
    small = {"epochs": EPOCHS, "batch_size": 16, "learning_rate": 0.02, "dropout": 0.3, "random_state": 3, **options}
    return make_head(name, "single", **({} if name == "conv" else {"hidden": [8]}), **small)


def state(head):
    """Return everything that training gave."""
    return {name: one.numpy() for name, one in head.module_.state_dict().items()}, head.history_


def stopped_after(folder, name, options, epochs, x=X, y=Y):
    """Train until *epochs* epochs are done in all, continuing what lies in *folder*: a second passes in each."""
    record = folder / "state.json"
    done = len(json.loads(record.read_text())["history"]) if record.is_file() else 0
    checkpoint = Checkpoint(folder, {"what": "test"}, seconds=epochs - done + 1, every=1e9, resume=True, clock=Clock())
    head_of(name, **options).fit(x, y, validation=(X[60:], Y[60:]), checkpoint=checkpoint)


@pytest.mark.parametrize("name", ["mlp", "moe", "conv"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_stopped_at_three_random_places_equals_never_stopped(name, optimizer, tmp_path):
    """Weights and history are equal to the bit, for every optimiser, with dropout, shuffling and early stopping."""
    options = dict(OPTIMIZERS[optimizer])
    if name == "conv" and optimizer in ("sgd", "projected"):
        options.pop("project")
    x, y = (X[:10], Y[:10]) if optimizer == "projected" and name != "conv" else (X[:60], Y[:60])
    whole = head_of(name, **options).fit(x, y, validation=(X[60:], Y[60:]))
    places = sorted(np.random.default_rng(len(name) + len(optimizer)).choice(np.arange(1, EPOCHS), 3, replace=False))
    for place in places:
        stopped_after(tmp_path / "state", name, options, place, x, y)
    resumed = head_of(name, **options)
    resumed.fit(
        x, y, validation=(X[60:], Y[60:]), checkpoint=Checkpoint(tmp_path / "state", {"what": "test"}, resume=True)
    )
    weights, history = state(whole)
    again, history_again = state(resumed)
    assert history_again == history
    assert all(np.array_equal(weights[key], again[key]) for key in weights)
    assert np.array_equal(whole.predict_proba(X), resumed.predict_proba(X))


def test_the_state_is_safetensors_and_json(tmp_path):
    """Nothing in the folder is code, old arrays are gone, and what is left loads."""
    stopped_after(tmp_path, "mlp", {}, 4)
    assert {path.name for path in tmp_path.iterdir()} == {"state.json", "state.4.safetensors"}
    record = json.loads((tmp_path / "state.json").read_text())
    assert len(record["history"]) == 4


def test_training_stops_in_time(tmp_path):
    """One second to begin and one an epoch, a budget of seven: six epochs fit, and the seventh is not begun."""
    checkpoint = Checkpoint(tmp_path, {}, seconds=7, every=1e9, clock=Clock())
    head = head_of("mlp", patience=None).fit(X, Y, checkpoint=checkpoint)
    assert checkpoint.unfinished
    assert len(head.history_) == 6
    assert (tmp_path / "state.json").is_file()
    done = Checkpoint(tmp_path / "b", {}, seconds=1e9)
    head_of("mlp").fit(X, Y, checkpoint=done)
    assert not done.unfinished


def _link(place):
    """Put a link to a precious file in the place of a file of the state."""
    victim = place.parents[1] / "precious"
    victim.write_bytes(place.read_bytes() if place.exists() else b"precious")
    place.unlink(missing_ok=True)
    place.symlink_to(victim)


@pytest.mark.parametrize("name", [".state.json.tmp", ".state.5.safetensors.tmp", "state.5.safetensors"])
def test_a_state_is_not_written_through_a_link(tmp_path, name):
    """The names under which the state is kept are known, so a stranger may have put links there."""
    folder = tmp_path / "state"
    stopped_after(folder, "mlp", {}, 4)
    _link(folder / name)
    stopped_after(folder, "mlp", {}, 6)
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_folder_of_a_state_is_no_link(tmp_path):
    """Old states are removed from it, and the whole folder at the end."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "state.1.safetensors").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "models")
    with pytest.raises(RunError, match="symbolic link"):
        head_of("mlp").fit(X, Y, checkpoint=Checkpoint(tmp_path / "link", {}))
    (tmp_path / "run.checkpoint").symlink_to(tmp_path / "models")
    with pytest.raises(RunError, match="symbolic link"):
        Interruption(tmp_path / "run", resume=True)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["state.1.safetensors"]


def _edited(**changes):
    """Return what changes values of ``state.json``."""

    def spoil(folder):
        record = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps({**record, **changes}))

    return spoil


def _without(name):
    """Return what takes an array out of the state, or gives it another shape."""

    def spoil(folder):
        arrays = load_file(folder / "state.4.safetensors")
        key = next(key for key in arrays if key.startswith(name))
        arrays[key] = np.zeros(3, arrays[key].dtype)
        save_file(arrays, folder / "state.4.safetensors")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: _link(folder / "state.json"), "symbolic link"),
        (lambda folder: _link(folder / "state.4.safetensors"), "symbolic link"),
        (lambda folder: os.truncate(folder / "state.json", 2**31), "at most"),
        (_edited(step="x"), "is damaged"),
        (_edited(history=["x"]), "is damaged"),
        (_edited(history=7), "is damaged"),
        (_edited(optimizer={"moments": ["x"], "scalars": {}}), "is damaged"),
        (_edited(arrays="../x"), "is damaged"),
        (_without("module."), "is damaged"),
        (_without("best."), "is damaged"),
        (_without("optimizer."), "is damaged"),
        (_without("generator.torch"), "is damaged"),
        (lambda folder: (folder / "state.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "state.4.safetensors").write_bytes(b"x"), "is damaged"),
        (lambda folder: (folder / "state.json").write_text('{"format_version": 9}'), "format version 9"),
    ],
)
def test_a_damaged_state_is_refused(tmp_path, spoil, words):
    """One sentence, and what to do."""
    stopped_after(tmp_path, "mlp", {}, 4)
    spoil(tmp_path)
    with pytest.raises(RunError, match=rf"{words}.*without --resume"):
        head_of("mlp").fit(X, Y, checkpoint=Checkpoint(tmp_path, {"what": "test"}, resume=True))


def test_the_state_of_another_training_is_refused(tmp_path):
    """The identity names what differs."""
    stopped_after(tmp_path, "mlp", {}, 4)
    with pytest.raises(RunError, match="another training: what differ"):
        head_of("mlp").fit(X, Y, checkpoint=Checkpoint(tmp_path, {"what": "other"}, resume=True))


# ---- whole runs -----------------------------------------------------------------------------------------------------


def config_of(store, folder, **more):
    """Return a run of a small network with a second fit."""
    settings = {"hidden": [6], "epochs": 6, "patience": 4, "learning_rate": 0.02}
    asked = {
        "blocks": ("alpha.pool",),
        "settings": settings,
        "resamples": 20,
        "refit": True,
        "out": str(folder),
        **more,
    }
    return RunConfig(str(store), "polarity", "mlp", **asked)


def test_a_run_is_gone_on_with_until_it_is_done(store, tmp_path):
    """Budgets that end in the first fit or in the second: the run at last equals the one that was never stopped."""
    whole = run(config_of(store, tmp_path / "whole"))
    again, stops, said = config_of(store, tmp_path / "again"), 0, ""
    while not (tmp_path / "again").exists():
        interruption = Interruption(tmp_path / "again", seconds=8, resume=stops > 0, clock=Clock())
        try:
            run(again, interruption=interruption)
        except UnfinishedError as error:
            said, stops = str(error), stops + 1
        assert stops < 40
    assert "--resume" in said
    assert stops >= 2
    assert not (tmp_path / "again.checkpoint").exists()
    heads = [load_head(folder / "model") for folder in (whole.folder, tmp_path / "again")]
    assert np.array_equal(heads[0].predict_proba(np.eye(12)), heads[1].predict_proba(np.eye(12)))
    predictions = [(folder / "predictions.csv").read_text() for folder in (whole.folder, tmp_path / "again")]
    assert predictions[0] == predictions[1]


def test_a_state_is_neither_taken_nor_thrown_away_unasked(store, tmp_path):
    """Without --resume and --force it is an error; another configuration is refused."""
    config = config_of(store, tmp_path / "run")
    with pytest.raises(UnfinishedError):
        run(config, interruption=Interruption(tmp_path / "run", seconds=3, clock=Clock()))
    with pytest.raises(RunError, match=r"unfinished training.*--resume.*--force"):
        Interruption(tmp_path / "run")
    with pytest.raises(RunError, match="another training: config"):
        run(config_of(store, tmp_path / "run", seed=1), interruption=Interruption(tmp_path / "run", resume=True))
    Interruption(tmp_path / "run", force=True)
    assert not (tmp_path / "run.checkpoint").exists()


def test_heads_without_epochs_cannot_be_stopped(store, tmp_path):
    """The error names the head, not a traceback."""
    config = RunConfig(str(store), "polarity", "svm", blocks=("alpha.pool",), out=str(tmp_path / "run"))
    with pytest.raises(ConfigError, match="SVMClassifier is not trained by epochs"):
        run(config, interruption=Interruption(tmp_path / "run"))


@pytest.mark.parametrize(("text", "seconds"), [("9h", 32400), ("1.5m", 90), ("45s", 45), ("2d", 172800)])
def test_durations(text, seconds):
    """Hours, minutes, seconds, days."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["9", "h", "-1h", "nanh", "infd", "9 weeks", ""])
def test_durations_that_are_none(text):
    """Each is refused with an example."""
    with pytest.raises(RunError, match="9h or 90m"):
        parse_duration(text)
