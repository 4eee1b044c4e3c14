"""Whether an emotion is pleasant, by its name, and what it costs to take one for another."""

from __future__ import annotations

from collections.abc import Sequence

from features_store.errors import UnknownNameError

__all__ = ["POLARITIES", "polarity_costs"]

_PLEASANT = (
    "amusement awe contentment excitement positive joy happiness surprise relief love trust admiration highly_positive"
)
_UNPLEASANT = "negative anger disgust fear sadness sad anxiety horror empathic_pain boredom shame guilt highly_negative"
POLARITIES: dict[str, int] = {
    **dict.fromkeys(_PLEASANT.split(), 1),
    **dict.fromkeys(_UNPLEASANT.split(), -1),
    "neutral": 0,
    "craving": 0,
}
"""By class: 1 pleasant, -1 unpleasant, 0 neither. Surprise counts as pleasant, as in the binary task of EmotionROI."""


def polarity_costs(classes: Sequence[str]) -> list[list[float]]:
    """Return what it costs to say class k (column) of an image of class c (row): 1 for the wrong polarity.

    Half of the difference of the polarities: taking a pleasant for an unpleasant emotion costs 1, either for a neutral
    one 0.5, and one pleasant emotion for another nothing beyond what the loss says already.

    Raises UnknownNameError.
    """
    keys = [name.strip().lower().replace(" ", "_") for name in classes]
    unknown = [name for name, key in zip(classes, keys, strict=True) if key not in POLARITIES]
    if unknown:
        raise UnknownNameError(
            f"the polarity of class {unknown[0]!r} isn't known; give cost as a matrix, a row (the truth) and a column "
            f"(what is said) for each of {', '.join(classes)}"
        )
    signs = [POLARITIES[key] for key in keys]
    return [[abs(truth - said) / 2 for said in signs] for truth in signs]
