"""Groups whose images a split puts into several parts: named, counted, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import TaskError
from features_store import Split
from features_store.schema import PART_NAMES

_WHO = {
    "published": "was published so",
    "made": "says that it was made here, where groups stay whole",
    "": "does not say that it was published so",
}


@dataclass(frozen=True)
class Crossing:
    """The groups that a split puts into several parts, among the images of a task."""

    split: str
    source: str  # whether the split was published or made; "" = not stated
    n_groups: int
    n_images: int  # of these groups
    clean: Mapping[str, NDArray[np.bool_]]  # by part that is scored, its images of no group that an earlier part has

    @property
    def counts(self) -> str:
        """What crosses, in words."""
        groups, images = ("" if n == 1 else "s" for n in (self.n_groups, self.n_images))
        return f"split {self.split!r} parts {self.n_groups:,} group{groups} of {self.n_images:,} image{images}"

    def words(self) -> str:
        """Say what crosses, and how a run treats it."""
        name = "test" if "test" in self.clean else "validation"
        n_out, n = int((~self.clean[name]).sum()), len(self.clean[name])
        mates = "the training images" if name == "validation" else "training or validation"
        effect = f"none of the {n:,} {name} images has a group mate in {mates}"
        if n_out:
            effect = (
                f"{n_out:,} of {n:,} {name} images have a group mate in {mates}: values without them stand beside, and "
                "verdicts leave them out"
            )
        return f"{self.counts[0].upper()}{self.counts[1:]} and {_WHO[self.source]}; {effect}."

    def words_on_folds(self) -> str:
        """Say what crosses where all is dealt to folds anew."""
        return (
            f"{self.counts[0].upper()}{self.counts[1:]} and {_WHO[self.source]}; the folds of training and validation "
            "images keep groups whole, and the test part is left alone."
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"source": self.source, "n_groups": self.n_groups, "n_images": self.n_images}


def find_crossing(
    groups_of: Mapping[str, NDArray[np.int64] | None], split: str = "", source: str = ""
) -> Crossing | None:
    """Return what crosses between parts, of each of which the groups of its images are given; None where none does."""
    given = [(code, name, groups_of[name]) for code, name in enumerate(PART_NAMES) if name in groups_of]
    known = [(code, name, groups) for code, name, groups in given if groups is not None]
    if not known or len(known) < len(given):
        return None
    groups = np.concatenate([groups for _, _, groups in known])
    codes = np.concatenate([np.full(len(groups), code, dtype=np.int8) for code, _, groups in known])
    crossing = Split("parts", codes).crossed(groups)
    if not crossing.any():
        return None
    clean = {}
    for code, name, own in known[1:]:
        seen = np.unique(groups[(codes < code) & (groups >= 0)])
        clean[name] = ~np.isin(own, seen)
    return Crossing(split, source, len(np.unique(groups[crossing])), int(crossing.sum()), clean)


def refuse_crossing(crossing: Crossing | None, *, allow: bool) -> None:
    """Refuse a split that parts groups, unless it was published so or the user allows it."""
    if crossing is None or allow or crossing.source == "published":
        return
    raise TaskError(
        f"{crossing.counts} and {_WHO[crossing.source]}, so a score would count images that training has seen alike; "
        "make a split with `features-store splits`, which keeps groups whole, or go on with --allow-split-groups "
        "(allow_split_groups = true), which stamps every table"
    )
