"""Figures that a page has besides those of a run: reliability, learning curve, ablation, valence and arousal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.pages.svg import Frame, label, nice_ticks, number, shorten, svg

__all__ = ["ablation_plot", "learning_plot", "plane_plot", "reliability_plot"]

MAX_ARROWS = 250


def reliability_plot(before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]] | None) -> str:
    """Draw how often what was said came true, against what was said; below, how often it was said."""
    frame = Frame(58, 30, 240, 220, (0, 1), (0, 1))
    parts = frame.axes("", "came true")
    parts.append(frame.line(frame.place(0, 0), frame.place(1, 1), stroke="muted", dash="3 4"))
    legend = [("accent", "as the head says")]
    if after:
        parts += _reliability_line(frame, after, "second", hollow=True)
        legend.append(("second", "calibrated"))
    parts += _reliability_line(frame, before, "accent", hollow=False)
    for i, (colour, name) in enumerate(legend):
        start = 58 + 130 * i
        parts.append(f'<path d="M{start} 14h18" stroke="var(--{colour})" stroke-width="2.5"/>')
        parts.append(label(start + 24, 18, name, fill="ink"))
    total = sum(row["n"] for row in before) or 1
    parts.append(label(50, 304, "share", anchor="end"))
    for row in before:
        x, _ = frame.place(row["low"], 0)
        height = 36 * row["n"] / total
        parts.append(
            f'<rect x="{x + 1:.1f}" y="{310 - height:.1f}" width="22" height="{max(height, 0.75):.1f}" rx="1.5" '
            'fill="var(--accent)" fill-opacity=".4"/>'
        )
    parts.append(label(178, 330, "probability that was said", anchor="middle"))
    return svg(312, 338, "Reliability: what was said against what came true", parts)


def _reliability_line(frame: Frame, rows: Sequence[Mapping[str, float]], colour: str, *, hollow: bool) -> list[str]:
    total = sum(row["n"] for row in rows) or 1
    points = [(*frame.place(row["said"], row["true"]), row["n"]) for row in rows]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    parts = [f'<polyline points="{path}" fill="none" stroke="var(--{colour})" stroke-width="1.6" stroke-opacity=".8"/>']
    fill = "paper" if hollow else colour
    for x, y, n in points:
        radius = 2.6 + 5 * (n / total) ** 0.5
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="var(--{fill})" stroke="var(--{colour})" '
            'stroke-width="1.6"/>'
        )
    return parts


def learning_plot(points: Sequence[Mapping[str, float]], metric: str, baseline: float | None) -> str:
    """Draw the metric against the number of training images, on a logarithmic scale."""
    ends = [value for point in points for value in (point["low"], point["high"], point["lowest"], point["highest"])]
    values = [value for value in ends if value is not None]
    values += [] if baseline is None else [baseline]
    pad = 0.05 * (max(values) - min(values)) or 0.05
    xs = [float(np.log10(point["n"])) for point in points]
    frame = Frame(62, 30, 266, 220, (min(xs) - 0.04, max(xs) + 0.04), (min(values) - pad, max(values) + pad))
    parts = []
    for value in nice_ticks(*frame.y, 5):
        _, y = frame.place(0, value)
        parts += [frame.line((62, y), (328, y)), label(54, y + 4, number(value), anchor="end")]
    if all(point[end] is not None for point in points for end in ("low", "high")):
        upper, lower = ([frame.place(x, p[end]) for x, p in zip(xs, points, strict=True)] for end in ("high", "low"))
        outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*upper, *reversed(lower)])
        parts.append(f'<polygon points="{outline}" fill="var(--accent)" fill-opacity=".13"/>')
    if baseline is not None:
        _, y = frame.place(0, baseline)
        parts.append(frame.line((62, y), (328, y), stroke="second", dash="3 3"))
    line = [frame.place(x, p["value"]) for x, p in zip(xs, points, strict=True)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
    parts.append(f'<polyline points="{path}" fill="none" stroke="var(--accent)" stroke-width="2"/>')
    for (x, y), point in zip(line, points, strict=True):
        ends = [frame.place(0, point[end])[1] for end in ("lowest", "highest")]
        parts.append(frame.line((x, ends[0]), (x, ends[1]), stroke="accent"))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="var(--accent)"/>')
        parts.append(label(x, 268, str(point["n"]), anchor="middle"))
    parts.append(label(195, 288, "training images", anchor="middle"))
    parts.append(label(62, 18, metric, fill="ink"))
    return svg(342, 298, f"{metric} by number of training images", parts)


def ablation_plot(rows: Sequence[Mapping[str, Any]], blocks: Sequence[str], metric: str) -> str:
    """Draw for each set of blocks a row: a dot under each block that is in it, and the metric with its interval."""
    ends = [row[key] for row in rows for key in ("value", "low", "high") if row.get(key) is not None]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    air = 0.06 * (high - low) or 0.05
    names = [shorten(name, 30) for name in blocks]
    tall, column, step = 30 + 4.4 * max(map(len, names)), 26.0, 24.0
    left = 24 + column * len(blocks) + 26
    frame = Frame(left, tall, 300, step * len(rows), (low - air, high + air), (0, 1))
    bottom = tall + step * len(rows)
    parts = []
    for j, name in enumerate(names):
        x = 24 + column * j
        turn = f' transform="rotate(-42 {x:.1f} {tall - 10:.1f})"'
        parts.append(label(x, tall - 10, name, fill="ink", extra=turn))
    for value in nice_ticks(*frame.x, 5):
        x, _ = frame.place(value, 0)
        parts += [frame.line((x, tall), (x, bottom)), label(x, bottom + 16, number(value), anchor="middle")]
    for i, row in enumerate(rows):
        parts += _ablation_row(frame, row, blocks, tall + step * (i + 0.5), column)
    room = max(376.0, 5.6 * max(map(len, names)))
    parts.append(label(left + 150, bottom + 34, metric, anchor="middle"))
    return svg(left + room, bottom + 42, f"{metric} by the blocks that were used", parts)


def _ablation_row(frame: Frame, row: Mapping[str, Any], blocks: Sequence[str], y: float, column: float) -> list[str]:
    inside = [24 + column * j for j, name in enumerate(blocks) if name in row["blocks"]]
    parts = [f"<title>{escape(' + '.join(map(str, row['blocks'])))}</title>"]
    if len(inside) > 1:
        parts.append(f'<path d="M{inside[0]:.1f} {y}H{inside[-1]:.1f}" stroke="var(--ink)" stroke-width="2"/>')
    for j in range(len(blocks)):
        x = 24 + column * j
        colour = "ink" if x in inside else "line"
        parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="5.5" fill="var(--{colour})"/>')
    if row.get("value") is not None:
        x, _ = frame.place(row["value"], 0)
        if row.get("low") is not None and row.get("high") is not None:
            (a, _), (b, _) = frame.place(row["low"], 0), frame.place(row["high"], 0)
            parts.append(
                f'<line x1="{a:.1f}" y1="{y}" x2="{b:.1f}" y2="{y}" stroke="var(--accent)" stroke-width="5" '
                'stroke-linecap="round" stroke-opacity=".4"/>'
            )
        parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="4.6" fill="var(--accent)"/>')
        parts.append(label(frame.left + 308, y + 4, number(round(row["value"], 3))))
    return ["<g>", *parts, "</g>"]


def plane_plot(
    truth: NDArray[np.float64], said: NDArray[np.float64], *, names: tuple[str, str], span: tuple[float, float]
) -> str:
    """Draw each image in the plane of two outputs: where it is, and where the head puts it.

    Shapes: truth, said (n_images, 2); names (str, str); span (float, float).
    """
    chosen = np.linspace(0, len(truth) - 1, min(len(truth), MAX_ARROWS)).round().astype(int)
    frame = Frame(66, 34, 300, 300, span, span)
    parts = frame.axes(*names)
    middle = (span[0] + span[1]) / 2
    parts.append(frame.line(frame.place(span[0], middle), frame.place(span[1], middle), stroke="muted", dash="2 4"))
    parts.append(frame.line(frame.place(middle, span[0]), frame.place(middle, span[1]), stroke="muted", dash="2 4"))
    lines, starts, ends = [], [], []
    for t, p in zip(np.clip(truth, *span)[chosen], np.clip(said, *span)[chosen], strict=True):
        (x, y), (u, v) = frame.place(*t.tolist()), frame.place(*p.tolist())
        lines.append(f'<path d="M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}"/>')
        starts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.8"/>')
        ends.append(f'<circle cx="{u:.1f}" cy="{v:.1f}" r="2.8"/>')
    parts.append(f'<g stroke="var(--muted)" stroke-opacity=".25">{"".join(lines)}</g>')
    parts.append(f'<g fill="var(--second)" fill-opacity=".75">{"".join(starts)}</g>')
    parts.append(f'<g fill="var(--accent)" fill-opacity=".75">{"".join(ends)}</g>')
    for i, (colour, name) in enumerate((("second", "true"), ("accent", "predicted"))):
        parts.append(f'<circle cx="{72 + 80 * i}" cy="14" r="4" fill="var(--{colour})"/>')
        parts.append(label(82 + 80 * i, 18, name, fill="ink"))
    return svg(384, 382, f"{names[0]} and {names[1]}, true and predicted", parts)
