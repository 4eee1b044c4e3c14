"""One drawing of each chart: confusion, loss, scatter, plane, interval, reliability, learning curve, ablation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.data.kinds import kind_of
from classify.evaluation.wording import metric_title
from classify.figures.svg import (
    Frame,
    dot,
    interval_bar,
    label,
    number,
    padded,
    path,
    shorten,
    standalone,
    svg,
)
from features_store.schema import Task

MAX_GRID, MAX_CONFUSIONS = 50, 30  # classes of a confusion matrix; of more, bars that are drawn instead
MAX_POINTS, MAX_ARROWS = 2000, 250  # images in a scatter and in a plane; more make a page slow and a picture black
MAX_SUBSETS = 24  # of an ablation
_MOST_POINTS = 600  # of a curve
ABLATION_TITLE = " of each subset of blocks"  # at the end of the title, by which a chart is known
Floats = NDArray[np.float64]


def run_figures(
    task: Task,
    *,
    confusion: Sequence[Sequence[int]] | None,
    history: Sequence[Mapping[str, Any]],
    y_true: NDArray[Any],
    y_score: NDArray[Any],
) -> dict[str, str]:
    """Draw the figures that lie in the folder of a run, each able to stand alone."""
    figures = {}
    if confusion is not None:
        figures["confusion"] = confusion_chart(confusion, task.classes)
    if len(history) > 1:
        figures["curve"] = loss_chart(history)
    if not kind_of(task).has_classes:
        truth, predicted = (a.reshape(len(a), -1) for a in (y_true, y_score))
        for i, name in enumerate(task.classes):
            file = "".join(c if c.isalnum() else "_" for c in name)[:60]
            figures[f"scatter-{file}"] = scatter_chart(truth[:, i], predicted[:, i], name=name, span=task.range)
    return {name: standalone(figure) for name, figure in figures.items()}


def confusion_chart(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Draw a confusion matrix: in each cell the share of its row, shaded by it, and the count below.

    Of more than 50 classes there is no grid, but a bar for each of the 30 strongest confusions.
    """
    n = len(classes)
    if n > MAX_GRID:
        return _strongest(np.asarray(matrix), classes)
    size = 76.0 if n <= 4 else 56.0 if n <= 8 else 44.0
    names = [shorten(name, 16) for name in classes]
    longest = max(map(len, names))
    left = 30 + 7 * longest
    tilted = n > 4 or longest * 7 > size
    top = 44 + (5 * longest if tilted else 0)
    parts = [
        label(left + n * size / 2, 14, "predicted", anchor="middle"),
        label(12, top + n * size / 2, "true", anchor="middle", turn=-90),
    ]
    for i, name in enumerate(names):
        middle = (i + 0.5) * size
        turn, anchor = (-40, "start") if tilted else (0, "middle")
        parts.append(label(left + middle, top - 8, name, anchor=anchor, fill="ink", turn=turn))
        parts.append(label(left - 8, top + middle + 4, name, anchor="end", fill="ink"))
        parts += _confusion_row(matrix[i], left, top + i * size, size)
    room = 4.5 * longest if tilted else 8
    return svg(left + n * size + room, top + n * size + 8, "Confusion matrix, rows are true classes", parts)


def _confusion_row(counts: Sequence[int], left: float, y: float, size: float) -> list[str]:
    total, parts = sum(counts), []
    large, small = (15, 11) if size > 50 else (12, 9)
    for j, count in enumerate(counts):
        share = count / total if total else 0.0
        x, ink = left + j * size, "paper" if share > 0.55 else "ink"
        parts.append(
            f'<rect x="{x + 1}" y="{y + 1}" width="{size - 2}" height="{size - 2}" rx="3" '
            f'fill="var(--shade)" fill-opacity="{0.06 + 0.94 * share:.3f}"/>'
        )
        text, middle = f"{share:.0%}" if total else "–", x + size / 2
        parts.append(label(middle, y + size / 2 - 1, text, anchor="middle", fill=ink, font_weight=600, font_size=large))
        parts.append(label(middle, y + size / 2 + 15, str(count), anchor="middle", fill=ink, font_size=small))
    return parts


def _strongest(matrix: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Draw the confusions that most images fall to, each as a bar with its two classes and its count."""
    counts = matrix.astype(np.int64)
    np.fill_diagonal(counts, 0)
    order = [at for at in np.argsort(-counts, axis=None, kind="stable")[:MAX_CONFUSIONS] if counts.flat[at]]
    totals, parts = matrix.sum(axis=1), [label(10, 16, "true, predicted", fill="ink")]
    most = max((int(counts.flat[at]) for at in order), default=1)
    for i, at in enumerate(order):
        (true, taken), y = divmod(int(at), len(classes)), 34 + 20 * i
        count = int(counts[true, taken])
        parts.append(label(10, y + 4, f"{shorten(classes[true], 24)}, {shorten(classes[taken], 24)}", fill="ink"))
        parts.append(
            f'<rect x="360" y="{y - 7}" width="{120 * count / most:.1f}" height="14" rx="2" fill="var(--shade)" '
            'fill-opacity=".6"/>'
        )
        parts.append(label(488, y + 4, f"{count} of {int(totals[true])}"))
    return svg(580, 44 + 20 * max(len(order), 1), f"The {len(order)} strongest confusions", parts)


def loss_chart(history: Sequence[Mapping[str, Any]], name: str = "loss") -> str:
    """Draw training and validation loss (or accuracy) by epoch, and mark the epoch of the best validation value."""
    names = {name: ("accent", "training"), f"validation_{name}": ("second", "validation")}
    lines = {key: curve for key in names if (curve := curve_points(history, key))}
    values = [row[key] for key in lines for row in history if row.get(key) is not None] or [0.0, 1.0]
    epochs = [epoch for points in lines.values() for epoch, _ in points] or [0, 1]
    frame = Frame(66, 34, 420, 216, (min(epochs), max(epochs)), padded(values, 0.06))
    parts = [*frame.y_axis(name), *frame.x_axis("epoch"), *_legend(66, [names[key] for key in lines])]
    parts += [path([frame.place(*point) for point in lines[key]], names[key][0], width=2) for key in lines]
    key = f"validation_{name}"
    if scored := [row for row in history if row.get(key) is not None]:  # of all epochs, also those that are not drawn
        best, word = (min, "lowest") if name == "loss" else (max, "highest")
        row = best(scored, key=lambda row: row[key])
        parts.append(dot(*frame.place(row["epoch"], row[key]), 4.5, "second"))
        parts.append(label(320, 18, f"● {word} at epoch {row['epoch']}", fill="second"))
    return svg(500, 296, f"{name.capitalize()} by epoch", parts)


def curve_points(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Return epoch and value of one curve, as many as can be told apart; empty where nothing is recorded."""
    points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
    return points[:: max(1, len(points) // _MOST_POINTS)]


def _legend(left: float, entries: Sequence[tuple[str, str]]) -> list[str]:
    """Return a stroke and a name for each colour, side by side above a frame."""
    parts = []
    for i, (colour, name) in enumerate(entries):
        x = left + 122 * i
        parts += [path([(x, 14), (x + 18, 14)], colour, width=2.5), label(x + 24, 18, name, fill="ink")]
    return parts


def _scale(x_name: str, y_name: str, span: tuple[float, float] | None) -> tuple[Frame, list[str]]:
    """Return a square frame over a scale of values, its axes, and broken lines through its middle."""
    low, high = span or (-1.0, 1.0)
    frame, middle = Frame(66, 34, 300, 300, (low, high), (low, high)), (low + high) / 2
    cross = [
        frame.line((low, middle), (high, middle), "muted", "2 4"),
        frame.line((middle, low), (middle, high), "muted", "2 4"),
    ]
    return frame, [*frame.y_axis(y_name), *frame.x_axis(x_name), *cross]


def scatter_chart(truth: Floats, predicted: Floats, *, name: str, span: tuple[float, float] | None) -> str:
    """Draw predicted against true values, over the whole scale, with the line where both agree.

    At most 2,000 images are drawn, chosen evenly; a value beyond the scale is drawn at its end.
    """
    chosen = np.linspace(0, len(truth) - 1, min(len(truth), MAX_POINTS)).round().astype(int)
    frame, parts = _scale(f"true {name}", f"predicted {name}", span)
    parts.append(frame.line((frame.x[0], frame.x[0]), (frame.x[1], frame.x[1]), "second"))
    places = zip(np.clip(truth, *frame.x)[chosen].tolist(), np.clip(predicted, *frame.x)[chosen].tolist(), strict=True)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>' for x, y in (frame.place(t, p) for t, p in places))
    parts.append(f'<g fill="var(--accent)" fill-opacity="{0.55 if len(chosen) < 500 else 0.25}">{dots}</g>')
    return svg(384, 382, f"Predicted against true {name}", parts)


def plane_chart(truth: Floats, predicted: Floats, *, names: tuple[str, str], span: tuple[float, float] | None) -> str:
    """Draw images in the plane of two outputs: the true place of each, and the one that the head predicts.

    Shapes: truth, predicted (n_images, 2).
    """
    chosen = np.linspace(0, len(truth) - 1, min(len(truth), MAX_ARROWS)).round().astype(int)
    frame, parts = _scale(*names, span)
    starts, ends = (
        [frame.place(x, y) for x, y in np.clip(values, *frame.x)[chosen].tolist()] for values in (truth, predicted)
    )
    lines = "".join(
        f'<path d="M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}"/>' for (x, y), (u, v) in zip(starts, ends, strict=True)
    )
    parts.append(f'<g stroke="var(--muted)" stroke-opacity=".25">{lines}</g>')
    for i, (colour, name, places) in enumerate((("second", "true", starts), ("accent", "predicted", ends))):
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.8"/>' for x, y in places)
        parts.append(f'<g fill="var(--{colour})" fill-opacity=".75">{dots}</g>')
        parts += [dot(72 + 80 * i, 14, 4, colour), label(82 + 80 * i, 18, name, fill="ink")]
    return svg(384, 382, f"{names[0]} and {names[1]}, true and predicted", parts)


def interval_chart(interval: Mapping[str, Any], baseline: float | None, span: tuple[float, float]) -> str:
    """Draw one interval as a bar with a dot, and the baseline as an upright line, over a common scale."""
    frame = Frame(6, 0, 188, 22, span, (0, 1))
    parts = [path([(0, 11), (200, 11)], "line")]
    if baseline is not None and math.isfinite(baseline):
        parts.append(frame.line((baseline, 0), (baseline, 1), "second", "3 2"))
    value, low, high = interval["value"], interval["low"], interval["high"]
    ends = "no interval" if low is None or high is None else f"interval {low:.3f} to {high:.3f}"
    words = "undefined" if value is None else f"{value:.3f}, {ends}"
    return svg(200, 22, words, [*parts, *interval_bar(frame, interval, 11)])


def reliability_chart(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]] | None) -> str:
    """Draw observed frequency against mean predicted probability; below, the share of answers in each bin."""
    frame = Frame(58, 30, 240, 220, (0, 1), (0, 1))
    parts = [*frame.y_axis("observed frequency"), *frame.x_axis(""), frame.line((0, 0), (1, 1), "muted", "3 4")]
    lines = [("accent", "uncalibrated", before)] + ([("second", "calibrated", after)] if after else [])
    parts += _legend(58, [(colour, name) for colour, name, _ in lines])
    for colour, _, rows in reversed(lines):
        total = sum(row["n"] for row in rows) or 1
        points = [frame.place(row["said"], row["true"]) for row in rows]
        parts.append(path(points, colour, width=1.6, opacity=0.8))
        fill = "paper" if colour == "second" else colour
        for (x, y), row in zip(points, rows, strict=True):
            parts.append(dot(x, y, round(2.6 + 5 * (row["n"] / total) ** 0.5, 1), fill, colour))
    total = sum(row["n"] for row in before) or 1
    parts.append(label(50, 304, "share", anchor="end"))
    for row in before:
        height = 36 * row["n"] / total
        parts.append(
            f'<rect x="{frame.place(row["low"], 0)[0] + 1:.1f}" y="{310 - height:.1f}" width="22" '
            f'height="{max(height, 0.75):.1f}" rx="1.5" fill="var(--accent)" fill-opacity=".4"/>'
        )
    parts.append(label(178, 330, "mean predicted probability", anchor="middle"))
    return svg(312, 338, "Reliability: observed frequency against predicted probability", parts)


def learning_chart(points: Sequence[Mapping[str, Any]], metric: str, baseline: float | None) -> str:
    """Draw the metric against the number of training images, on a logarithmic scale."""
    ends = [point[key] for point in points for key in ("low", "high", "lowest", "highest")]
    values = [value for value in (*ends, baseline) if value is not None]
    xs = [math.log10(point["n"]) for point in points]
    frame = Frame(62, 30, 266, 220, (min(xs) - 0.04, max(xs) + 0.04), padded(values, 0.05))
    parts = frame.y_axis("")
    if all(point[end] is not None for point in points for end in ("low", "high")):
        upper, lower = ([frame.place(x, p[end]) for x, p in zip(xs, points, strict=True)] for end in ("high", "low"))
        outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*upper, *reversed(lower)])
        parts.append(f'<polygon points="{outline}" fill="var(--accent)" fill-opacity=".13"/>')
    if baseline is not None:
        parts.append(frame.line((frame.x[0], baseline), (frame.x[1], baseline), "second", "3 3"))
    parts.append(path([frame.place(x, p["value"]) for x, p in zip(xs, points, strict=True)], "accent", width=2))
    for x, point in zip(xs, points, strict=True):
        parts.append(frame.line((x, point["lowest"]), (x, point["highest"]), "accent"))
        parts.append(dot(*frame.place(x, point["value"]), 3.6, "accent"))
        parts.append(label(frame.place(x, 0)[0], 268, str(point["n"]), anchor="middle"))
    parts += [label(195, 288, "training images", anchor="middle"), label(62, 18, metric, fill="ink")]
    return svg(342, 298, f"{metric} by number of training images", parts)


def ablation_chart(found: Mapping[str, Any]) -> str:
    """Draw for each set of blocks a row: a dot for each block in it, and the metric with its interval.

    At most 24 sets are drawn, the first ones. The broken line is the majority baseline.
    """
    metric = found["metric"]
    subsets = [{"blocks": row["blocks"], **row["metrics"][metric]} for row in found["subsets"][:MAX_SUBSETS]]
    blocks = sorted({*found["blocks"], *(name for row in subsets for name in row["blocks"])})
    baseline = found["baseline"][metric]["value"]
    ends = [row[key] for row in subsets for key in ("value", "low", "high") if row.get(key) is not None]
    ends += [] if baseline is None else [baseline]
    names = [shorten(name, 30) for name in blocks]
    longest = max(map(len, names), default=0)
    top, column, step = 30 + 4.4 * longest, 26.0, 24.0
    left = 50 + column * len(blocks)
    frame = Frame(left, top, 300, step * len(subsets), padded(ends or [0.0, 1.0], 0.06), (0, 1))
    columns = [24 + column * j for j in range(len(blocks))]
    parts = [label(x, top - 10, name, fill="ink", turn=-42) for x, name in zip(columns, names, strict=True)]
    parts += frame.x_axis(metric_title(metric), grid=True)
    if baseline is not None:
        parts.append(frame.line((baseline, 0), (baseline, 1), "second", "4 3"))
    for i, row in enumerate(subsets):
        y = top + step * (i + 0.5)
        used = [x for x, name in zip(columns, blocks, strict=True) if name in row["blocks"]]
        parts.append(f"<g><title>{escape(' + '.join(map(str, row['blocks'])))}</title>")
        parts += [path([(used[0], y), (used[-1], y)], "ink", width=2)] if len(used) > 1 else []
        parts += [dot(x, y, 5.5, "ink" if x in used else "line") for x in columns]
        parts += interval_bar(frame, row, y)
        if row.get("value") is not None:
            parts.append(label(frame.right + 8, y + 4, number(round(row["value"], 3))))
        parts.append("</g>")
    title = f"{found['task']}: {metric_title(metric)}{ABLATION_TITLE}"
    return svg(left + max(376.0, 5.6 * longest), frame.bottom + 46, title, parts)
