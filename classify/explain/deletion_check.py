"""The deletion check of saliency maps: covering the most salient cells must hurt the decision more than other cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import ModelError
from classify.evaluation.bootstrap import student
from classify.explain.saliency import cell_means, covered

if TYPE_CHECKING:
    from classify.explain.explainer import Explainer, Picture

__all__ = ["deletion_check", "deletion_text", "summarize"]

GRID = 8  # the picture is cut into 8 x 8 cells
HOTTEST = 13  # of 64 cells: a fifth of the picture
N_DRAWS = 5  # of as many cells at random, and of the shape of the hottest ones moved elsewhere
MIN_IMAGES = 8  # with fewer, the interval passes meaningless maps too often

Floats = NDArray[np.float64]


def deletion_check(
    explainer: Explainer, paths: Sequence[str], *, seed: int = 0, step: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Cover the most salient fifth of each picture, and as much of it at random, and compare what the decision loses.

    Cells are filled with the picture's mean colour. The shape of the most salient cells, moved elsewhere (around the
    edges), is a harder control than cells drawn one by one: it is as compact as they are.
    """
    random, losses = np.random.default_rng(seed), []
    for path in paths:
        try:
            picture = explainer.open(path)
        except ModelError:  # it cannot be read
            pass
        else:
            losses.append(_losses(explainer, picture, random))
        step()
    return summarize(np.array(losses))


def _losses(explainer: Explainer, picture: Picture, random: np.random.Generator) -> list[float]:
    """Return what the decision loses with the most salient cells, with random ones, with the shape moved."""
    target = explainer.target(picture)
    values = explainer.block_values(picture, target)
    field = explainer.field(explainer.maps(picture, target, values), values)
    hottest = np.argsort(-cell_means(field, GRID), kind="stable")[:HOTTEST]
    chosen = [hottest]
    chosen += [random.choice(GRID**2, HOTTEST, replace=False) for _ in range(N_DRAWS)]
    chosen += [_moved(hottest, random) for _ in range(N_DRAWS)]
    changed = [[covered(pixels, cells, GRID) for pixels in picture.pixels] for cells in chosen]
    whole = explainer.logits(picture.vector[None], target)[0]
    lost = whole - explainer.logits(explainer.vectors(changed), target)
    return [lost[0], lost[1 : 1 + N_DRAWS].mean(), lost[1 + N_DRAWS :].mean()]


def _moved(cells: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    down, right = 0, 0
    while down == right == 0:
        down, right = random.integers(GRID, size=2)
    return (cells // GRID + down) % GRID * GRID + (cells % GRID + right) % GRID


def summarize(losses: Floats) -> dict[str, Any]:
    """Compare what the decision loses with the hottest cells, with random ones, with the shape moved: (n_images, 3)."""
    if len(losses) < MIN_IMAGES:
        return {"n_images": len(losses), "passed": None}
    hottest, chance, moved = losses.T
    found: dict[str, Any] = {"hottest": hottest.mean(), "random": chance.mean(), "moved": moved.mean()}
    found = {name: float(value) for name, value in found.items()}
    for name, gaps in (("difference", hottest - chance), ("difference_moved", hottest - moved)):
        mean, half = float(gaps.mean()), student(len(gaps) - 1) * float(gaps.std(ddof=1)) / np.sqrt(len(gaps))
        found[name] = {"value": mean, "low": float(mean - half), "high": float(mean + half)}
    return {
        **found,
        "better": float((hottest > chance).mean()),
        "better_moved": float((hottest > moved).mean()),
        "n_images": len(losses),
        "share_covered": HOTTEST / GRID**2,
        "passed": bool(found["difference"]["low"] > 0),
    }


def deletion_text(found: dict[str, Any]) -> str:
    """Return the check as one line for people."""
    if found["passed"] is None:
        return f"deletion check: {found['n_images']} images are too few, it takes {MIN_IMAGES}"
    gap, moved = found["difference"], found["difference_moved"]
    verdict = "the maps mean something" if found["passed"] else "not shown that the maps mean anything"
    return (
        f"deletion check, {found['n_images']} images: covering the hottest {found['share_covered']:.0%} takes "
        f"{found['hottest']:.2f}, as much at random {found['random']:.2f}; difference {gap['value']:.2f} "
        f"[{gap['low']:.2f}, {gap['high']:.2f}], against the same shape elsewhere {moved['value']:.2f} "
        f"[{moved['low']:.2f}, {moved['high']:.2f}]: {verdict}"
    )
