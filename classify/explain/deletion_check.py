"""The deletion check of saliency maps: covering the most salient cells must hurt the decision more than other cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classify.errors import ModelError
from classify.evaluation.wording import p_text
from classify.explain.saliency import cell_means, covered

if TYPE_CHECKING:
    from classify.explain.explainer import Explainer, Picture

GRID = 8  # the picture is cut into 8 x 8 cells
HOTTEST = 13  # of 64 cells: a fifth of the picture
N_DRAWS = 5  # of as many cells at random, and of the shape of the hottest ones moved elsewhere
MIN_IMAGES = 8  # fewer say little of a head
N_DEALS = 1999  # of the coverings within each picture
LEVEL = 0.025

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
    return summarize(np.array(losses), seed)


def _losses(explainer: Explainer, picture: Picture, random: np.random.Generator) -> list[float]:
    """Return what the decision loses with the hottest cells, with N_DRAWS random sets, with N_DRAWS moved shapes."""
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
    return [float(one) for one in lost]


def _moved(cells: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    down, right = 0, 0
    while down == right == 0:
        down, right = random.integers(GRID, size=2)
    return (cells // GRID + down) % GRID * GRID + (cells % GRID + right) % GRID


def summarize(losses: Floats, seed: int = 0) -> dict[str, Any]:
    """Compare what the decision loses with the hottest cells, with random ones, with the shape moved: (n_images, 11).

    Maps that mean nothing could have chosen any of the coverings of a picture, so p deals again, picture by picture,
    which of them was the hottest: exact for any number of pictures and any losses, those with a few large ones
    included, where a t interval of the difference (or flipping its signs) passes six times too many.
    """
    if len(losses) < MIN_IMAGES:
        return {"n_images": len(losses), "passed": None}
    hottest, chance, moved = losses[:, 0], losses[:, 1 : 1 + N_DRAWS], losses[:, 1 + N_DRAWS :]
    found: dict[str, Any] = {"hottest": hottest.mean(), "random": chance.mean(), "moved": moved.mean()}
    found = {name: float(value) for name, value in found.items()}
    for name, others in (("difference", chance), ("difference_moved", moved)):
        gap = float((hottest - others.mean(axis=1)).mean())
        found[name] = {"value": gap, "p": _dealt_p(hottest, others, np.random.default_rng(seed))}
    return {
        **found,
        "better": float((hottest > chance.mean(axis=1)).mean()),
        "better_moved": float((hottest > moved.mean(axis=1)).mean()),
        "n_images": len(losses),
        "share_covered": HOTTEST / GRID**2,
        "passed": bool(found["difference"]["p"] <= LEVEL),
    }


def _dealt_p(hottest: Floats, others: Floats, random: np.random.Generator) -> float:
    """Return how often coverings dealt at random within each picture take as much in sum as the hottest cells do."""
    every = np.column_stack([hottest, others])
    every -= every.mean(axis=1, keepdims=True)
    dealt = np.zeros(N_DEALS)
    for row in every:
        dealt += row[random.integers(len(row), size=N_DEALS, dtype=np.uint8)]
    total = every[:, 0].sum()
    return float((1 + np.sum(dealt >= total - 1e-9 * np.abs(every).sum())) / (1 + N_DEALS))


def deletion_text(found: dict[str, Any]) -> str:
    """Return the check as one line for people."""
    if found["passed"] is None:
        return f"deletion check: {found['n_images']} images are too few, it takes {MIN_IMAGES}"
    gap, moved = found["difference"], found["difference_moved"]
    verdict = "the hottest cells matter more than cells at random"
    if not found["passed"]:
        verdict = f"not shown that {verdict}"
    return (
        f"deletion check, {found['n_images']} images: covering the hottest {found['share_covered']:.0%} takes "
        f"{found['hottest']:.2f}, as much at random {found['random']:.2f}; difference {gap['value']:.2f} "
        f"(p {p_text(gap['p'])}), against the same shape elsewhere {moved['value']:.2f} "
        f"(p {p_text(moved['p'])}): {verdict}"
    )
