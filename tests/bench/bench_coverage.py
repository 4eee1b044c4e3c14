"""How often the intervals cover, and how often noise is called knowledge: ``python -m tests.bench coverage``.

Long: an hour or more on one core. With ``--folder DIR --keep`` each finished cell is kept in ``DIR/coverage.jsonl``
and never done again, so the bench may be stopped, resumed and shared: ``AFFECTORY_COVERAGE=1/4`` does every fourth cell
from the first. ``AFFECTORY_COVERAGE=print`` prints the tables of what is there.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from classify.evaluation.bootstrap import Spread, intervals
from classify.evaluation.calibration import calibration_error, expected_errors, fit_calibration, reliability
from classify.evaluation.comparison import less
from classify.evaluation.metrics import metrics_of
from classify.evaluation.verdict import judge
from tests.bench.worlds import WORLDS, World, endless

SIZES = (30, 83, 300, 2000)
RESAMPLES = 400
Rates = dict[str, dict[str, float]]


def repetitions(n: int) -> int:
    """How often a cell is simulated."""
    return 400 if n >= 2000 else 1000


def coverage(name: str, n: int, *, grouped: bool, times: int, seed: int = 0) -> Rates:
    """Count, by metric, how often an interval is given, how often it covers, and how often it lacks its own value.

    A mean over classes is counted twice: over all of them, and as ``NAME, some`` over those that have images enough.
    """
    values, by_class = endless(name)
    world = WORLDS[name]
    counts: Rates = {}
    for i in range(times):
        truth, score, groups = world.draw(n, seed * 1_000_003 + i, grouped=grouped)
        spread = Spread.of(world.task, truth, score, groups, n_resamples=RESAMPLES, seed=i // 50)
        found = intervals(spread)
        for metric, record in metrics_of(world.task).items():
            one = found[metric]
            _count(counts, metric, one.value, one.low, one.high, values[metric])
            if record.averaged:
                kept = spread.class_units >= record.least_of_class
                over = one.over or {"value": one.value, "low": one.low, "high": one.high}
                aim = float(np.nanmean(by_class[metric][kept])) if kept.any() else math.nan
                _count(counts, f"{metric}, some", over["value"], over["low"], over["high"], aim)
    return {metric: {key: total / times for key, total in one.items()} for metric, one in counts.items()}


def _count(counts: Rates, metric: str, value: float, low: float, high: float, aim: float) -> None:
    row = counts.setdefault(metric, {"given": 0, "covers": 0, "lacks_value": 0})
    given = math.isfinite(low)
    row["given"] += given
    row["covers"] += given and low <= aim <= high
    row["lacks_value"] += given and not low <= value <= high


def noise(name: str, n: int, *, grouped: bool, times: int, seed: int = 0) -> Rates:
    """Count, by metric, how often a head that knows nothing is called better."""
    world = WORLDS[name]
    blind = World(world.task, world.shares, 0.0)
    counts: dict[str, list[Any]] = {}
    for i in range(times):
        truth, score, groups = blind.draw(n, seed * 1_000_003 + i, grouped=grouped)
        options: dict[str, Any] = {"n_resamples": 200, "seed": i // 50}
        head = Spread.of(world.task, truth, score, groups, **options)
        majority = Spread.of(world.task, truth, constant(world, truth), groups, **options)
        for metric, one in judge(world.task, truth, head, majority, groups, seed=i).items():
            counts.setdefault(metric, []).append(one.verdict)
    return {metric: {"better": float(np.mean(np.array(said) == "better"))} for metric, said in counts.items()}


def constant(world: World, truth: np.ndarray) -> np.ndarray:
    """The majority's answer, known without error."""
    if world.task.kind == "regression":
        return np.tile(endless_mean(world), (len(truth),) + (1,) * (truth.ndim - 1)).reshape(truth.shape)
    return np.tile(world.shares, (len(truth), 1))


def endless_mean(world: World) -> np.ndarray:
    """The mean of the labels of a regression."""
    return np.mean(world.draw(20_000, 5, grouped=False)[0], axis=0)


def equal_heads(name: str, n: int, *, grouped: bool, times: int, seed: int = 0) -> Rates:
    """Count, by metric, how often one of two equally good heads is called the better one, p <= 0.05."""
    world = WORLDS[name]
    counts: dict[str, list[Any]] = {}
    for i in range(times):
        truth, _, groups = world.draw(n, seed * 1_000_003 + 2 * i, grouped=grouped)
        other = _another(world, truth, groups, np.random.default_rng(77 + i))
        options: dict[str, Any] = {"n_resamples": RESAMPLES, "seed": i // 50}
        first = Spread.of(
            world.task, truth, _another(world, truth, groups, np.random.default_rng(9_077 + i)), groups, **options
        )
        second = Spread.of(world.task, truth, other, groups, **options)
        for metric in first.values:
            p = less(first, second, metric).p
            counts.setdefault(metric, []).append(math.nan if math.isnan(p) else p <= 0.05)
    return {metric: {"different": float(np.mean(said))} for metric, said in counts.items()}


def _another(world: World, truth: np.ndarray, groups: Any, random: np.random.Generator) -> np.ndarray:
    """Answers of the world's head with other errors."""
    n, width = len(truth), len(world.task.classes)

    def normal(k: int) -> np.ndarray:
        own = random.normal(size=(n, k))
        if groups is None:
            return own
        return np.sqrt(0.5) * random.normal(size=(n, k))[groups] + np.sqrt(0.5) * own

    if world.task.kind == "single":
        logits = np.log(world.shares) + world.signal * np.eye(width)[truth] + normal(width)
        raised = np.exp(logits)
        return raised / raised.sum(axis=1, keepdims=True)
    if world.task.kind == "multi":
        shares = np.array(world.shares)
        return 1 / (1 + np.exp(-(np.log(shares / (1 - shares)) + world.signal * (truth - shares) + normal(width))))
    return 0.6 * np.arctanh(np.clip(truth, -0.999, 0.999)) + 0.2 * normal(width).reshape(truth.shape)


def calibrated(name: str, n: int, *, grouped: bool, times: int, seed: int = 0) -> Rates:
    """Count how often a head whose probabilities are exact is tempered, and is called miscalibrated."""
    world = WORLDS[name]
    tempered, above = [], []
    for i in range(times):
        _, score, _ = world.draw(n, seed * 1_000_003 + i, grouped=grouped)
        random = np.random.default_rng(i)
        if world.task.kind == "single":
            truth = (score.cumsum(axis=1) < random.random((n, 1))).sum(axis=1).clip(max=score.shape[1] - 1)
        else:
            truth = (random.random(score.shape) < score).astype(np.uint8)
        tempered.append(fit_calibration(world.task, truth, score)[0] is not None)
        above.append(calibration_error(reliability(world.task, truth, score)) > expected_errors(world.task, score)[1])
    return {"temperature": {"kept": float(np.mean(tempered))}, "ECE": {"above its 95% point": float(np.mean(above))}}


STUDIES: dict[str, tuple[Callable[..., Rates], str, tuple[str, ...], tuple[int, ...]]] = {
    "coverage": (coverage, "intervals that cover, of those given", tuple(WORLDS), SIZES),
    "noise": (noise, "heads without knowledge called better (2.5% meant)", tuple(WORLDS), (30, 83, 300)),
    "equal": (
        equal_heads,
        "equal heads called different (5% meant)",
        ("3 classes", "3 skewed", "3 labels", "valence"),
        SIZES[:3],
    ),
    "calibrated": (
        calibrated,
        "exact probabilities corrected (5% meant)",
        ("3 classes", "3 labels"),
        (20, 42, 83, 300),
    ),
}


def cells() -> Iterator[tuple[str, str, int, bool]]:
    """Yield every cell: those of 83 images first, the slow ones last."""
    every = [
        (study, name, n, grouped)
        for study, (_, _, names, sizes) in STUDIES.items()
        for name in names
        for n in sizes
        for grouped in ((False,) if study == "calibrated" else (False, True))
    ]
    yield from sorted(every, key=lambda cell: (cell[2] != 83, cell[2], "28" in cell[1]))


def main() -> None:
    """Do the cells that aren't there, and print the tables."""
    path = Path(os.environ.get("AFFECTORY_BENCH_FOLDER", ".")) / "coverage.jsonl"
    asked = os.environ.get("AFFECTORY_COVERAGE", "1/1")
    if asked != "print":
        first, _, step = asked.partition("/")
        done = {tuple(json.loads(line)["cell"]) for line in _lines(path)}
        for cell in list(cells())[int(first) - 1 :: int(step)]:
            if cell in done:
                continue
            study, name, n, grouped = cell
            rates = STUDIES[study][0](name, n, grouped=grouped, times=repetitions(n))
            with path.open("a") as file:
                file.write(json.dumps({"cell": cell, "times": repetitions(n), "rates": rates}) + "\n")
    records = [json.loads(line) for line in _lines(path)]
    for study in STUDIES:
        print("\n".join(table(study, [one for one in records if one["cell"][0] == study])))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def table(study: str, records: list[dict[str, Any]]) -> list[str]:
    """Lay out one study in Markdown: a line for each world and metric, a column for each size, plain and grouped.

    Of the outputs of a regression the worst stands for all.
    """
    _, what, names, sizes = STUDIES[study]
    found = {tuple(one["cell"][1:]): one for one in records}
    both = (False,) if study == "calibrated" else (False, True)
    columns = [(n, grouped) for grouped in both for n in sizes]
    lines = [f"\n{study}: {what}, %; Monte Carlo error at most {_error(records):.1f} points\n"]
    lines.append("| | " + " | ".join(f"{n}{' in groups' if grouped else ''}" for n, grouped in columns) + " |")
    lines.append("|---" * (len(columns) + 1) + "|")
    for name in names:
        rates = [one["rates"] for key, one in found.items() if key[0] == name]
        for metric in dict.fromkeys(m.partition("/")[0] + "/" * ("/" in m) for of_cell in rates for m in of_cell):
            row = [_cell(found.get((name, *column)), metric) for column in columns]
            words = metric.replace("_", " ").replace("/", ", worst output")
            lines.append(f"| {name}: {words} | " + " | ".join(row) + " |")
    return lines


def _error(records: list[dict[str, Any]]) -> float:
    return max((100 * math.sqrt(0.05 * 0.95 / one["times"]) for one in records), default=0.0)


def _cell(record: dict[str, Any] | None, metric: str) -> str:
    every = {} if record is None else record["rates"]
    some = [rates for name, rates in every.items() if name == metric or (metric[-1] == "/" and name.startswith(metric))]
    if record is None or not some:
        return ""
    if "given" not in some[0]:
        worst = max(rate for rates in some for rate in rates.values())
        return "–" if math.isnan(worst) else f"{100 * worst:.1f}"
    rates = min(some, key=lambda one: one["covers"] / max(one["given"], 1e-9))
    if rates["given"] * record["times"] < 100:  # too few for a share
        return "–"
    mark = "" if rates["given"] > 0.995 else f" ({100 * rates['given']:.0f})"
    return f"{100 * rates['covers'] / rates['given']:.1f}{mark}" + (" !" if rates["lacks_value"] else "")


if __name__ == "__main__":
    main()
