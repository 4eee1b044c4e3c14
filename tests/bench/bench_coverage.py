"""How often the intervals cover, and how often noise is called knowledge: ``python -m tests.bench coverage``.

Long: an hour or more on one core. With ``--folder DIR --keep`` each finished cell is kept in ``DIR/coverage.jsonl``
and never done again, so the bench may be stopped, resumed and shared: ``AFFECTORY_COVERAGE=1/4`` does every fourth cell
from the first, ``AFFECTORY_COVERAGE=novelty`` those of one study, and ``AFFECTORY_COVERAGE=print`` prints the tables of
what is there.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from classify.data.kinds import kind_of
from classify.data.rows import ArrayRows
from classify.evaluation.bootstrap import Spread, intervals
from classify.evaluation.calibration import calibration_error, expected_errors, fit_calibration, reliability
from classify.evaluation.comparison import less
from classify.evaluation.label_errors import expected_count, improbable_values, out_of_fold, probable_errors
from classify.evaluation.metrics import metrics, metrics_of
from classify.evaluation.novelty import fit_novelty
from classify.evaluation.postprocessing import SHRINKAGE, at_thresholds, best_thresholds
from classify.evaluation.verdict import judge
from classify.explain.deletion_check import N_DRAWS, summarize
from tests.bench.worlds import NOVELTY_WORLDS, WORLDS, World, endless, vectors

SIZES = (30, 83, 300, 2000)
RESAMPLES = 400
Rates = dict[str, dict[str, float]]


def repetitions(study: str, n: int) -> int:
    """How often a cell is simulated."""
    return {"novelty": 60, "doubted": 60, "thresholds": 200}.get(study, 400 if n >= 2000 else 1000)


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


def novelty(name: str, n: int, *, grouped: bool, times: int, seed: int = 0) -> Rates:
    """Count how often a new row of the same world is called unlike the training rows, on either side of a threshold."""
    width, n_blocks = NOVELTY_WORLDS[name]
    shares, task = [], WORLDS["3 classes"].task
    for i in range(times):
        draw = vectors(width * n_blocks, seed * 1_000_003 + i)
        known, new = np.split(draw(n), n_blocks, axis=1), draw(500)
        blocks = {f"b{k}": ArrayRows(block) for k, block in enumerate(known)}
        share = fit_novelty(blocks, task, np.arange(n) % 3, seed=i).share(ArrayRows(new))
        shares.append(share["share"] if share else math.nan)
    return {"new rows": {"flagged": float(np.mean(shares))}}


def explained(name: str, n: int, *, grouped: bool, times: int, seed: int = 0) -> Rates:
    """Count how often maps that mean nothing pass the deletion check."""
    passed = []
    for i in range(times):
        random = np.random.default_rng(seed * 1_000_003 + i)
        shape = (n, 1 + 2 * N_DRAWS)  # any covering of a picture could have been the hottest
        losses = random.normal(size=shape) if name == "normal losses" else random.lognormal(size=shape)
        if name == "gains with a few large ones":
            losses = -losses
        losses += random.normal(size=(n, 1))
        passed.append(summarize(losses, i)["passed"])
    return {"maps without meaning": {"passed": float(np.mean(passed))}}


def doubted(name: str, n: int, *, grouped: bool, times: int, seed: int = 0) -> Rates:
    """Compare the share of images whose label is doubted where none is wrong with the share that is expected."""
    task, found = WORLDS[name].task, []
    kind = kind_of(task)
    for i in range(times):
        random = np.random.default_rng(seed * 1_000_003 + i)
        x = random.normal(size=(n, 6)).astype(np.float32)
        logits = x @ random.normal(size=(6, kind.n_columns))
        if kind.has_classes:
            raised = np.exp(logits)
            y = kind.draw(kind.normalized(raised / (1 + raised.sum(axis=1, keepdims=True))), random)
        else:
            y = (logits + random.normal(size=logits.shape))[:, 0]
        scores = out_of_fold(task, x, y, seed=i)
        errors = probable_errors(task, y, scores) if kind.has_classes else improbable_values(y, scores)
        found.append((len({error.position for error in errors}) / n, expected_count(task, y, scores, seed=i) / n))
    listed, expected = np.mean(found, axis=0).tolist()
    return {"listed": {"share": listed}, "expected": {"share": expected}}


def thresholds(name: str, n: int, *, grouped: bool, times: int, seed: int = 0) -> Rates:
    """Compare macro F1 on fresh images at one half, at the thresholds, and at thresholds that are not shrunk."""
    world, found = WORLDS[name], []
    for i in range(times):
        truth, score, _ = world.draw(n, seed * 1_000_003 + 2 * i, grouped=False)
        fresh, fresh_score, _ = world.draw(1000, seed * 1_000_003 + 2 * i + 1, grouped=False)
        at = [[0.5] * len(world.task.classes)]
        at += [best_thresholds(world.task, truth, score, shrinkage=s) for s in (SHRINKAGE, 0.0)]
        found.append([metrics(world.task, fresh, at_thresholds(fresh_score, one))["macro_f1"] for one in at])
    names = ("macro F1 at one half", "macro F1 at thresholds", "macro F1 at thresholds as they come")
    return {what: {"mean": float(value)} for what, value in zip(names, np.mean(found, axis=0), strict=True)}


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
    "novelty": (novelty, "new rows called unlike (1% meant)", tuple(NOVELTY_WORLDS), (40, 120, 300, 1000)),
    "explained": (
        explained,
        "maps without meaning that pass (2.5% meant)",
        ("normal losses", "losses with a few large ones", "gains with a few large ones"),
        (8, 20, 83),
    ),
    "doubted": (
        doubted,
        "labels doubted where none is wrong, and as many as are expected",
        ("3 classes", "3 labels", "valence"),
        (300, 600),
    ),
    "thresholds": (thresholds, "what thresholds are worth on fresh images", ("3 labels", "28 labels"), (42, 83, 300)),
}
MEANS = ("novelty", "doubted", "thresholds")  # not shares of repetitions
UNGROUPED = ("calibrated", "novelty", "explained", "doubted", "thresholds")


def cells() -> Iterator[tuple[str, str, int, bool]]:
    """Yield every cell: those of 83 images first, the slow ones last."""
    every = [
        (study, name, n, grouped)
        for study, (_, _, names, sizes) in STUDIES.items()
        for name in names
        for n in sizes
        for grouped in ((False,) if study in UNGROUPED else (False, True))
    ]
    yield from sorted(every, key=lambda cell: (cell[2] != 83, cell[2], "28" in cell[1]))


def main() -> None:
    """Do the cells that aren't there, and print the tables."""
    path = Path(os.environ.get("AFFECTORY_BENCH_FOLDER", ".")) / "coverage.jsonl"
    asked = os.environ.get("AFFECTORY_COVERAGE", "1/1")
    if asked != "print":
        first, _, step = asked.partition("/")
        wanted = [cell for cell in cells() if cell[0] == asked] if asked in STUDIES else list(cells())
        done = {tuple(json.loads(line)["cell"]) for line in _lines(path)}
        for cell in wanted if asked in STUDIES else wanted[int(first) - 1 :: int(step)]:
            if cell in done:
                continue
            study, name, n, grouped = cell
            rates = STUDIES[study][0](name, n, grouped=grouped, times=repetitions(study, n))
            with path.open("a") as file:
                file.write(json.dumps({"cell": cell, "times": repetitions(study, n), "rates": rates}) + "\n")
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
    both = (False,) if study in UNGROUPED else (False, True)
    columns = [(n, grouped) for grouped in both for n in sizes]
    error = f"; Monte Carlo error at most {_error(records):.1f} points" if study not in MEANS else ""
    lines = [f"\n{study}: {what}, %{error}\n"]
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
