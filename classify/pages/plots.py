"""The figures of a run, as SVG text: confusion matrix, training curve, scatter of values, interval bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.pages.svg import STYLE, Frame, label, shorten, svg
from classify.runs.folder import Run
from features_store.atomic import atomic_folder

__all__ = ["MAX_GRID", "confusion_plot", "curve_plot", "interval_plot", "run_plots", "scatter_plot", "write_plots"]

MAX_GRID, MAX_CONFUSIONS = 50, 30  # classes of a confusion matrix; of more, bars that are drawn instead
MAX_POINTS = 2000  # dots in a scatter; more make a page slow and a picture black


def run_plots(run: Run) -> dict[str, str]:
    """Draw the figures of one run, each able to stand alone."""
    figures, task, report = {}, run.task, run.report
    if task.kind == "single":
        figures["confusion"] = confusion_plot(report.confusion[report.judged_part], task.classes)
    if len(report.history) > 1:
        figures["curve"] = curve_plot(report.history)
    if task.kind == "regression":
        span, part = task.range or (-1.0, 1.0), run.part(report.judged_part)
        truth, predicted = (a.reshape(len(a), -1) for a in (part.y_true, part.y_score))
        for i, name in enumerate(task.classes):
            figures[f"scatter-{_file_name(name)}"] = scatter_plot(truth[:, i], predicted[:, i], name=name, span=span)
    return {name: figure.replace("<title>", f"<style>{STYLE}</style><title>", 1) for name, figure in figures.items()}


def write_plots(run: Run) -> Run:
    """Draw the figures of a run into its folder, all or none, and return the run; a run that has them keeps them."""
    if not (run.folder / "plots").exists():
        with atomic_folder(run.folder / "plots") as folder:
            for name, figure in run_plots(run).items():
                (folder / f"{name}.svg").write_text(figure, encoding="utf-8")
    return run


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)[:60]


def confusion_plot(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Draw a confusion matrix: in each cell the share of its row, shaded by it, and the count below.

    Of more than 50 classes there is no grid, but a bar for each of the 30 strongest confusions.
    """
    n = len(classes)
    if n > MAX_GRID:
        return _strongest(np.asarray(matrix), classes)
    cell = 76.0 if n <= 4 else 56.0 if n <= 8 else 44.0
    names = [shorten(name, 16) for name in classes]
    left = 30 + 7 * max(map(len, names))
    tilted = n > 4 or max(map(len, names)) * 7 > cell
    top = 44 + (5 * max(map(len, names)) if tilted else 0)
    centre = top + n * cell / 2
    turn = f' transform="rotate(-90 12 {centre})"'
    parts = [
        label(left + n * cell / 2, 14, "decided", anchor="middle"),
        label(12, centre, "true", anchor="middle", extra=turn),
    ]
    for i, name in enumerate(names):
        middle = (i + 0.5) * cell
        x = left + middle
        tilt = f' transform="rotate(-40 {x} {top - 8})"' if tilted else ""
        parts.append(label(x, top - 8, name, anchor="start" if tilted else "middle", fill="ink", extra=tilt))
        parts.append(label(left - 8, top + middle + 4, name, anchor="end", fill="ink"))
        parts += _confusion_row(matrix[i], left, top + i * cell, cell)
    room = 4.5 * max(map(len, names)) if tilted else 8
    return svg(left + n * cell + room, top + n * cell + 8, "Confusion matrix, rows are true classes", parts)


def _strongest(matrix: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Draw the confusions that most images fall to, each as a bar with its two classes and its count."""
    counts = matrix.astype(np.int64)
    np.fill_diagonal(counts, 0)
    order = [at for at in np.argsort(-counts, axis=None, kind="stable")[:MAX_CONFUSIONS] if counts.flat[at]]
    totals, parts = matrix.sum(axis=1), [label(10, 16, "true, taken for", fill="ink")]
    most = max((int(counts.flat[at]) for at in order), default=1)
    for i, at in enumerate(order):
        (true, taken), y = divmod(int(at), len(classes)), 34 + 20 * i
        count = int(counts[true, taken])
        said = f"{shorten(classes[true], 24)}, {shorten(classes[taken], 24)}"
        parts.append(label(10, y + 4, said, fill="ink"))
        parts.append(
            f'<rect x="360" y="{y - 7}" width="{120 * count / most:.1f}" height="14" rx="2" fill="var(--shade)" '
            'fill-opacity=".6"/>'
        )
        parts.append(label(488, y + 4, f"{count} of {int(totals[true])}"))
    return svg(580, 44 + 20 * max(len(order), 1), f"The {len(order)} strongest confusions", parts)


def _confusion_row(counts: Sequence[int], left: float, y: float, cell: float) -> list[str]:
    total = sum(counts)
    parts = []
    for j, count in enumerate(counts):
        share = count / total if total else 0.0
        x = left + j * cell
        parts.append(
            f'<rect x="{x + 1}" y="{y + 1}" width="{cell - 2}" height="{cell - 2}" rx="3" '
            f'fill="var(--shade)" fill-opacity="{0.06 + 0.94 * share:.3f}"/>'
        )
        ink = "paper" if share > 0.55 else "ink"
        said = f"{share:.0%}" if total else "–"
        bold = f' font-weight="600" font-size="{15 if cell > 50 else 12}"'
        parts.append(label(x + cell / 2, y + cell / 2 - 1, said, anchor="middle", fill=ink, extra=bold))
        small = f' font-size="{11 if cell > 50 else 9}"'
        parts.append(label(x + cell / 2, y + cell / 2 + 15, str(count), anchor="middle", fill=ink, extra=small))
    return parts


def curve_plot(history: Sequence[Mapping[str, Any]]) -> str:
    """Draw training and validation loss by epoch, and mark the epoch of the lowest validation loss."""
    lines = {}
    for key in ("loss", "validation_loss"):
        points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
        if points:
            lines[key] = points[:: max(1, len(points) // 600)]
    values = [value for points in lines.values() for _, value in points] or [0.0, 1.0]
    epochs = [epoch for points in lines.values() for epoch, _ in points] or [0, 1]
    pad = 0.06 * (max(values) - min(values)) or 0.1
    frame = Frame(66, 34, 420, 216, (min(epochs), max(epochs)), (min(values) - pad, max(values) + pad))
    parts = frame.axes("epoch", "loss")
    for i, (key, points) in enumerate(lines.items()):
        colour = "accent" if key == "loss" else "second"
        path = " ".join("{:.1f},{:.1f}".format(*frame.place(*point)) for point in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="var(--{colour})" stroke-width="2"/>')
        name = "training" if key == "loss" else "validation"
        start = 66 + 120 * i
        parts.append(f'<path d="M{start} 14h20" stroke="var(--{colour})" stroke-width="2"/>')
        parts.append(label(start + 26, 18, name, fill="ink"))
    if "validation_loss" in lines:
        epoch, lowest = min(lines["validation_loss"], key=lambda point: point[1])
        x, y = frame.place(epoch, lowest)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="var(--second)"/>')
        parts.append(label(320, 18, f"● lowest at epoch {epoch}", fill="second"))
    return svg(500, 296, "Loss by epoch", parts)


def scatter_plot(truth: NDArray[np.float64], said: NDArray[np.float64], *, name: str, span: tuple[float, float]) -> str:
    """Draw predicted against true values, over the whole scale, with the line where both agree.

    At most 2,000 images are drawn, chosen evenly; a value beyond the scale is drawn at its end.

    Shapes: truth, said (n_images,); span (float, float).
    """
    chosen = np.linspace(0, len(truth) - 1, min(len(truth), MAX_POINTS)).round().astype(int)
    frame = Frame(66, 14, 300, 300, span, span)
    parts = frame.axes(f"true {name}", f"predicted {name}")
    middle = (span[0] + span[1]) / 2
    parts.append(frame.line(frame.place(span[0], middle), frame.place(span[1], middle), stroke="muted", dash="2 4"))
    parts.append(frame.line(frame.place(middle, span[0]), frame.place(middle, span[1]), stroke="muted", dash="2 4"))
    parts.append(frame.line(frame.place(span[0], span[0]), frame.place(span[1], span[1]), stroke="second"))
    dots = []
    for t, p in zip(np.clip(truth, *span)[chosen], np.clip(said, *span)[chosen], strict=True):
        x, y = frame.place(float(t), float(p))
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>')
    opacity = 0.55 if len(chosen) < 500 else 0.25
    parts.append(f'<g fill="var(--accent)" fill-opacity="{opacity}">{"".join(dots)}</g>')
    return svg(384, 362, f"Predicted against true {name}", parts)


def interval_plot(
    interval: Mapping[str, float | None], baseline: float | None, span: tuple[float, float], *, width: float = 200
) -> str:
    """Draw one interval as a bar with a dot, and the baseline as an upright line, over a common scale.

    Shapes: span (float, float).
    """
    frame = Frame(6, 0, width - 12, 22, span, (0, 1))
    parts = [frame.line((0, 11), (width, 11))]
    if baseline is not None and math.isfinite(baseline):
        x, _ = frame.place(baseline, 0)
        parts.append(frame.line((x, 0), (x, 22), stroke="second", dash="3 2"))
    value, low, high = interval["value"], interval["low"], interval["high"]
    if value is not None and low is not None and high is not None:
        (a, _), (b, _) = (frame.place(end, 0) for end in (low, high))
        parts.append(
            f'<line x1="{a:.1f}" y1="11" x2="{b:.1f}" y2="11" stroke="var(--accent)" stroke-width="5" '
            'stroke-linecap="round" stroke-opacity=".45"/>'
        )
    if value is not None:
        c, _ = frame.place(value, 0)
        parts.append(f'<circle cx="{c:.1f}" cy="11" r="5" fill="var(--accent)"/>')
    said = "undefined" if value is None else f"{value:.3f}, "
    if value is not None:
        said += "no interval" if low is None or high is None else f"interval {low:.3f} to {high:.3f}"
    return svg(width, 22, said, parts)
