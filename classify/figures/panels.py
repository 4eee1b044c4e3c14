"""Figures of several runs: their curves in one frame, histograms of corpora, charts and explanations side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.figures.charts import curve_points
from classify.figures.svg import PALETTE, Frame, label, padded, path, shorten, svg

Histories = Mapping[str, Sequence[Mapping[str, Any]]]
_CURVES = ("loss", "accuracy")
_WIDTH, _HEIGHT, _BINS = 420, 230, 32
_GAP = 24


def curves_figure(histories: Histories) -> str:
    """Draw loss and accuracy by epoch, a colour for each run: training broken, validation in one stroke."""
    shown = [name for name in _CURVES if any(row.get(name) is not None for rows in histories.values() for row in rows)]
    panels = [_curves(histories, name) for name in shown]
    keys = (
        ["training", "validation"]
        if any(curve_points(rows, f"validation_{one}") for rows in histories.values() for one in shown)
        else ["training"]
    )
    return side_by_side(panels, head=_legend(list(histories), keys), title="Curves by epoch")


def _curves(histories: Histories, name: str) -> str:
    lines = {
        (run, key): curve_points(rows, key) for run, rows in histories.items() for key in (name, f"validation_{name}")
    }
    lines = {which: points for which, points in lines.items() if points}
    epochs = [epoch for points in lines.values() for epoch, _ in points]
    values = [value for points in lines.values() for _, value in points]
    frame = Frame(66, 8, _WIDTH, _HEIGHT, (min(epochs), max(*epochs, min(epochs) + 1)), padded(values, 0.06))
    parts = [*frame.y_axis(name), *frame.x_axis("epoch")]
    colours = dict(zip(histories, PALETTE, strict=False))
    for (run, key), points in lines.items():
        dash = "" if key.startswith("validation") else "5 4"
        parts.append(path([frame.place(*point) for point in points], colours[run], width=2, dash=dash))
    return svg(frame.right + 14, frame.bottom + 46, f"{name} by epoch", parts)


def _legend(names: Sequence[str], keys: Sequence[str] = ()) -> tuple[float, float, list[str]]:
    """Return width, height and parts of a legend: a line for each name, and how its strokes are told apart."""
    parts = []
    for i, (colour, name) in enumerate(zip(PALETTE, names, strict=False)):
        y = 14.0 + 18 * i
        parts += [path([(12, y), (40, y)], colour, width=3), label(48, y + 4, shorten(name, 60), fill="ink")]
    height = 18.0 * len(names) + 6
    for i, key in enumerate(keys):
        x, y = 12 + 130 * i, height + 8
        parts += [path([(x, y), (x + 28, y)], "muted", width=2, dash="" if key == "validation" else "5 4")]
        parts.append(label(x + 36, y + 4, key))
    return 420.0, height + (22 if keys else 0), parts


def histogram_figure(values: Mapping[str, Mapping[str, NDArray[np.float64]]], span: tuple[float, float]) -> str:
    """Draw how values are distributed, a panel for each output, an outline for each corpus.

    *values* hold a column by the name of the corpus, by output; heights are shares of the images of a corpus.
    """
    edges = np.linspace(*span, _BINS + 1)
    panels = []
    for output, columns in values.items():
        shares = {name: np.histogram(np.clip(v, *span), edges)[0] / max(len(v), 1) for name, v in columns.items()}
        most = max((float(one.max()) for one in shares.values()), default=1.0) or 1.0
        frame = Frame(66, 8, _WIDTH, _HEIGHT, span, (0.0, most * 1.06))
        parts = [*frame.y_axis("share of the images"), *frame.x_axis(output)]
        for colour, heights in zip(PALETTE, shares.values(), strict=False):
            places = [(x, y) for i, y in enumerate(heights) for x in (edges[i], edges[i + 1])]
            points = [frame.place(*one) for one in [(edges[0], 0.0), *places, (edges[-1], 0.0)]]
            outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polygon points="{outline}" fill="var(--{colour})" fill-opacity=".16"/>')
            parts.append(path(points, colour, width=1.8))
        panels.append(svg(frame.right + 14, frame.bottom + 46, f"Histogram of {output}", parts))
    names = [f"{name}, {len(column):,} images" for name, column in next(iter(values.values())).items()]
    return side_by_side(panels, head=_legend(names), title="Histograms")


def pictures_figure(rows: Mapping[str, Sequence[Sequence[tuple[str, str]]]], columns: Sequence[str]) -> str:
    """Draw pictures in a grid: a band of rows for each class, a column for each run, a caption below each picture.

    *rows* hold by class lists of (data URI, caption), one a run; an empty URI leaves its place empty.
    """
    side, step = 176.0, 204.0
    left = 14 + 7.0 * max((min(len(name), 18) for name in rows), default=0) + 12
    parts = [
        label(left + i * (side + 12) + side / 2, 20, shorten(name, 26), anchor="middle", fill="ink", font_weight=600)
        for i, name in enumerate(columns)
    ]
    y = 34.0
    for name, members in rows.items():
        for at, member in enumerate(members):
            if not at:
                parts.append(
                    label(left - 12, y + side / 2, shorten(name, 18), anchor="end", fill="ink", font_weight=600)
                )
            for i, (uri, caption) in enumerate(member):
                x = left + i * (side + 12)
                middle = x + side / 2
                if uri:
                    box = f'x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" preserveAspectRatio="xMidYMax"'
                    parts.append(f'<image {box} href="{uri}"/>')
                    parts.append(label(middle, y + side + 16, shorten(f"predicted {caption}", 28), anchor="middle"))
                else:
                    parts.append(label(middle, y + side / 2, "not explained", anchor="middle"))
            y += step
    return svg(left + len(columns) * (side + 12) + 4, y + 6, "Explanations by class", parts)


def side_by_side(
    figures: Sequence[str],
    *,
    title: str,
    names: Sequence[str] = (),
    head: tuple[float, float, Sequence[str]] = (0.0, 0.0, ()),
) -> str:
    """Put charts beside each other, each under its name, below a head of drawn parts."""
    width, height, parts = *head[:2], [*head[2]]
    top = height + (26 if names else 4)
    x, tallest = 0.0, 0.0
    for i, figure in enumerate(figures):
        across, down = map(float, re.findall(r'viewBox="0 0 (\S+) (\S+)"', figure)[0])
        parts.append(figure.replace("<svg ", f'<svg x="{x:g}" y="{top:g}" ', 1))
        if names:
            named = shorten(names[i], max(8, int(across / 7)))
            parts.append(label(x + across / 2, top - 8, named, anchor="middle", fill="ink", font_weight=600))
        x, tallest = x + across + _GAP, max(tallest, down)
    return svg(max(width, x - _GAP), top + tallest, title, parts)
