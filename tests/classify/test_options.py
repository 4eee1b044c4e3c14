"""The contract of the options: whatever value is given, the answer is a fit or one sentence."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classify.errors import HeadError
from classify.heads import HEADS, head_class, make_head
from classify.heads.options import options_of
from classify.pages.tables import head_card

KINDS = ("single", "multi", "regression")
QUICK = {
    "epochs": 2, "n_rounds": 2, "hidden": 3, "n_jobs": 1, "min_leaf": 2, "batch_size": 8, "maps_per_class": 1,
    "candidates": 2,
}  # fmt: skip
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(24, 4)).astype(np.float32)
Y = {"single": np.arange(24) % 3, "multi": RANDOM.integers(2, size=(24, 2)), "regression": RANDOM.normal(size=24)}
NEVER = [
    object(), b"x", 1j, set(), math.nan, math.inf, -math.inf, -1.5, 10**400, 1e308, np.zeros(2), np.float64(math.nan),
    {0: -1}, {0: math.nan}, {0: 1e300}, [[math.nan] * 3] * 3, [[1, 1], [1, 1]], ["x"], [True], [-1, 2**30],
]  # fmt: skip
STRANGE = [
    object(), "x", "", "none", None, True, False, math.nan, math.inf, -math.inf, -1, -1.5, 0, 0.0, 1, 2.5, 1e-320,
    1e308, 10**12, 10**400, 1j, b"x", [], [0], [1], ["x"], [[1]], [True], {}, {"a": 1}, {0: -1}, {0: math.nan},
    {0: 0, 1: 0, 2: 0}, {0: 1e300}, set(), (), [[0, 1], [1, 0]], [[math.nan] * 3] * 3, np.float64(math.nan),
    np.int64(-3), np.zeros(2),
]  # fmt: skip
values = st.one_of(
    st.sampled_from(STRANGE),
    st.floats(),
    st.integers(-3, 3),
    st.text(max_size=3),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.integers(0, 3), st.floats(), max_size=3),
)


def end_of(name, kind, options):
    """Fit and predict; return what is wrong with how that ended, empty if nothing is."""
    quick = {key: value for key, value in QUICK.items() if key in options_of(head_class(name, kind))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            head = make_head(name, kind, **{**quick, **options}).fit(X, Y[kind], validation=(X[:6], Y[kind][:6]))
            found = head.predict(X) if kind == "regression" else head.predict_proba(X)
        except HeadError as error:
            return "" if "\n" not in str(error) else f"two lines: {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "" if np.isfinite(found).all() else "answers that are no numbers"


ALL = [(name, kind, option) for name in HEADS for kind in KINDS for option in options_of(head_class(name, kind))]


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_option_is_declared_and_refuses_what_it_cannot_mean(name, kind):
    """Each has help, a range in words, a default within it, and refuses what is in the range of no option."""
    made = head_class(name, kind)
    assert sorted(made().get_params()) == sorted(options_of(made))
    for option, declared in options_of(made).items():
        assert declared.help
        assert declared.takes
        assert declared.valid(getattr(made(), option))
        assert [value for value in NEVER if declared.valid(value)] == []
        with pytest.raises(HeadError, match=f"^{option} is .*; it takes "):
            make_head(name, kind, **{option: object()})
        head = made(**{option: object()})
        with pytest.raises(HeadError, match=f"^{option} is .*; it takes "):
            head.fit(X, Y[kind])


@pytest.mark.parametrize(
    ("name", "kind", "option"), [one for one in ALL if one[1] == "single" or one[2] in ("alpha", "epsilon")]
)
def test_strange_values_end_in_a_fit_or_in_one_sentence(name, kind, option):
    """Each of the values that once ended in a traceback, a hang or an answer that is no number."""
    wrong = {repr(value)[:60]: end for value in STRANGE if (end := end_of(name, kind, {option: value}))}
    assert wrong == {}


@pytest.mark.parametrize("name", [name for name in HEADS if options_of(head_class(name, "single"))])
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_drawn_options_end_in_a_fit_or_in_one_sentence(name, data):
    """Two options at once, of values drawn at random."""
    kind = data.draw(st.sampled_from(KINDS))
    names = st.sampled_from(list(options_of(head_class(name, kind))))
    options = data.draw(st.dictionaries(names, values, min_size=1, max_size=2))
    assert end_of(name, kind, options) == ""


def test_no_line_of_lightgbm_reaches_the_user(capfd):
    """Its own complaint, printed below Python, is kept off the error stream; the stream works afterwards."""
    import os

    import lightgbm

    from classify.heads.gbm import without_fatal_lines

    with without_fatal_lines(), pytest.raises(lightgbm.basic.LightGBMError):
        lightgbm.train({"num_leaves": -1, "verbosity": -1}, lightgbm.Dataset(X, Y["single"]))
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_the_card_of_a_head_is_printed_from_the_declarations():
    """Name, default, range and help of each option."""
    card = head_card("gbm")
    for option, declared in options_of(head_class("gbm", "single")).items():
        if option != "random_state":
            assert f"{option}=" in card
            assert declared.takes in card
            assert declared.help in card
