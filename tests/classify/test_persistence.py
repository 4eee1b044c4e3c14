"""Saving and loading: equal to the bit, and one clear error for anything else."""

import json
import pickletools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from classify.errors import HeadError
from classify.heads import HEADS, make_head
from classify.heads.persistence import load_head, save_head

QUICK = {
    "auto": {"budget": 6},
    "mlp": {"hidden": [8], "epochs": 2},
    "moe": {"hidden": [8], "epochs": 2},
    "conv": {"epochs": 2},
    "gbm": {"n_rounds": 5, "n_jobs": 1},
}
X = np.random.default_rng(0).normal(size=(80, 6))
TARGETS = {
    "single": np.array(["so", "là", "è"])[np.digitize(X[:, 0], [-0.5, 0.5])],
    "multi": np.column_stack([X[:, :2] > 0, np.zeros(80)]).astype(int),
    "regression": 5 + X[:, :2],
}


def fitted(name, kind="single", y=None):
    """Return a small fitted head."""
    return make_head(name, kind, **QUICK.get(name, {})).fit(X, TARGETS[kind] if y is None else y, validation=None)


@pytest.fixture
def saved(tmp_path):
    """Return the folder of a saved perceptron."""
    save_head(fitted("mlp"), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", HEADS)
def test_loaded_head_predicts_the_same_bits(name, kind, tmp_path):
    """Predictions, probabilities, labels, options and history all come back."""
    head = fitted(name, kind)
    save_head(head, tmp_path / "model")
    loaded = load_head(tmp_path / "model")
    assert type(loaded) is type(head)
    predicted = loaded.predict(X)
    assert np.array_equal(predicted, head.predict(X))
    assert predicted.dtype == head.predict(X).dtype
    if kind != "regression":
        assert np.array_equal(loaded.predict_proba(X), head.predict_proba(X))
    assert loaded.get_params() == head.get_params()
    assert (loaded.history_, loaded.n_parameters_) == (head.history_, head.n_parameters_)
    with pytest.raises(HeadError, match=r"5 features.*expecting 6"):
        loaded.predict(X[:, 1:])


def test_files_are_json_safetensors_and_text(tmp_path):
    """Nothing in the folder is a pickle, and the record says what made it."""
    for name in HEADS:
        save_head(fitted(name), tmp_path / name)
        for path in (tmp_path / name).iterdir():
            assert path.suffix in {".json", ".safetensors", ".txt"}
            with pytest.raises(ValueError):  # noqa: PT011 - each foreign byte has its own message
                list(pickletools.genops(path.read_bytes()))
    record = json.loads((tmp_path / "mlp" / "head.json").read_text(encoding="utf-8"))
    assert (record["head"], record["kind"]) == ("mlp", "single")
    assert record["attributes"]["classes_"]["values"] == ["là", "so", "è"]
    assert {"torch", "numpy", "scikit-learn"} <= set(record["versions"])


@pytest.mark.parametrize("y", [np.arange(80) % 3 - 1, np.arange(80) % 2 == 0, np.array(list("ab" * 40), dtype=object)])
def test_labels_keep_their_type(y, tmp_path):
    """Integers, booleans and objects come back as they were."""
    save_head(fitted("linear", y=y), tmp_path / "model")
    found = load_head(tmp_path / "model").predict(X)
    assert found.dtype == y.dtype
    assert set(found) <= set(y)


def test_a_flipped_byte_is_found(saved):
    """The checksum in the record covers the arrays."""
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(HeadError, match=r"cannot load a head from .*model\.safetensors .*checksum"):
        load_head(saved)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "damaged or not a head"),
        ("{", "damaged or not a head"),
        ("[]", 'does not say "format"'),
        ('{"format": "affectory-head", "format_version": 4}', "format version 4, this program reads 3; update"),
        (
            '{"format": "affectory-head", "format_version": 2}',
            "earlier version of affectory.*make it again with: classify run",
        ),
        ('{"format": "affectory-head", "format_version": 3}', "damaged or not a head"),
    ],
)
def test_a_wrong_record_is_one_clear_error(saved, content, said):
    """Whatever stands in head.json, the error names the folder and says what is wrong."""
    (saved / "head.json").write_text(content, encoding="utf-8")
    with pytest.raises(HeadError, match=f"cannot load a head from .*{said}"):
        load_head(saved)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("head", "os.system", "unknown head 'os.system'"),
        ("kind", "regression", "options|damaged"),
        ("params", {"surprise": 1}, "options that this version does not know: surprise"),
        ("params", {"hidden": [9]}, "damaged"),
        ("files", {"../../etc/passwd": "0"}, "takes model.safetensors"),
        ("attributes", {"n_features_in_": 6, "fit": 1}, "attributes is 'fit'; it takes n_features_in_"),
        ("attributes", {"n_features_in_": 6, "gamma_": 1.0}, "damaged|not"),
    ],
)
def test_a_record_that_was_tampered_with_is_refused(saved, key, value, said):
    """Classes come from the table alone, files from the folder alone, and shapes must fit."""
    record = json.loads((saved / "head.json").read_text(encoding="utf-8"))
    record[key] = value
    (saved / "head.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(HeadError, match=said):
        load_head(saved)


def test_a_missing_file_is_named(saved):
    """A folder without its arrays, or no folder at all."""
    (saved / "model.safetensors").unlink()
    with pytest.raises(HeadError, match=r"model\.safetensors is missing"):
        load_head(saved)
    with pytest.raises(HeadError, match=r"head\.json is missing"):
        load_head(saved / "nowhere")


def test_nothing_is_overwritten_and_nothing_half_written(saved, tmp_path):
    """A folder with content is refused; a head that cannot be saved leaves no trace."""
    with pytest.raises(HeadError, match="is not empty"):
        save_head(fitted("dummy"), saved)
    with pytest.raises(HeadError, match="is not fitted"):
        save_head(make_head("mlp", "single"), tmp_path / "other")
    with pytest.raises(HeadError, match="LogisticRegression is not in the table"):
        save_head(LogisticRegression(), tmp_path / "other")
    head = fitted("mlp")
    head.random_state = np.random.RandomState(0)
    with pytest.raises(HeadError, match="random_state is a RandomState"):
        save_head(head, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_empty_folder_may_be_filled(tmp_path):
    """A run makes its folder first."""
    (tmp_path / "model").mkdir()
    save_head(fitted("dummy"), tmp_path / "model")
    assert load_head(tmp_path / "model").predict(X).shape == (80,)
