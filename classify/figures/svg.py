"""The strokes that charts are drawn with: a scaled frame, dots, lines and labels in SVG, coloured by the theme."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_STYLE = (
    ":root{--paper:#fff;--ink:#1a1d21;--muted:#5c6570;--line:#d9dee4;--accent:#1f5fae;--second:#c2571a;--shade:#1f5fae}"
    "@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e8eaed;--muted:#9aa4b0;--line:#343b44;"
    "--accent:#7fb2f0;--second:#f0a36b;--shade:#4d8fdc}}"
    ":root{--c1:#1f5fae;--c2:#c2571a;--c3:#2f7d4f;--c4:#8a3f97;--c5:#8c6d00;--c6:#b3304f;--c7:#0f7f8c;--c8:#5b5b66}"
    "@media(prefers-color-scheme:dark){:root{--c1:#7fb2f0;--c2:#f0a36b;--c3:#7cc79a;--c4:#cf9bd9;--c5:#d8bd5a;"
    "--c6:#f08aa2;--c7:#6fd0dc;--c8:#b9b9c4}}"
    "svg{font:12px system-ui,sans-serif}"
)
PALETTE = tuple(f"c{i}" for i in range(1, 9))  # of figures of several runs, which stand alone
Point = tuple[float, float]


def svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """Wrap *parts* as one SVG image of the given size in pixels, with *title* for those who cannot see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def standalone(figure: str) -> str:
    """Return a figure with the colours that a page's own style gives it elsewhere."""
    return figure.replace("<title>", f"<style>{_STYLE}</style><title>", 1)


def label(
    x: float, y: float, text: str, *, anchor: str = "start", fill: str = "muted", turn: float = 0, **more: Any
) -> str:
    """Return a line of text at a pixel, turned by some degrees; *more* is attributes, with _ for -."""
    extra = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
    extra += "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="var(--{fill})"{extra}>{escape(text)}</text>'


def path(points: Iterable[Point], colour: str, *, width: float = 1, dash: str = "", opacity: float = 1) -> str:
    """Return a line through some pixels."""
    extra = ' fill="none" stroke-linecap="round"' + (f' stroke-dasharray="{dash}"' if dash else "")
    extra += f' stroke-opacity="{opacity:g}"' if opacity < 1 else ""
    places = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{places}" stroke="var(--{colour})" stroke-width="{width:g}"{extra}/>'


def dot(x: float, y: float, radius: float, fill: str, stroke: str = "") -> str:
    """Return a filled circle around a pixel."""
    ring = f' stroke="var(--{stroke})" stroke-width="1.6"' if stroke else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="var(--{fill})"{ring}/>'


def number(value: float) -> str:
    """Write the number of a tick without superfluous digits."""
    return f"{value:.4g}".replace("-", "−")


def shorten(text: str, length: int) -> str:
    """Cut *text* to *length* characters, the last of them an ellipsis where something is missing."""
    return text if len(text) <= length else text[: length - 1] + "…"


def padded(values: Sequence[float], share: float) -> tuple[float, float]:
    """Return the ends of an axis that has room for all values."""
    pad = share * (max(values) - min(values)) or 0.05
    return min(values) - pad, max(values) + pad


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about *count* round numbers from *low* to *high*."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    raw = span / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 2.5, 5) if m * power >= raw * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Frame:
    """A rectangle of pixels; *x* and *y* are the values at its left and right, its bottom and top."""

    left: float
    top: float
    width: float
    height: float
    x: Point
    y: Point

    @property
    def right(self) -> float:
        """The pixel of its right side."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The pixel of its lower side."""
        return self.top + self.height

    def place(self, x: float, y: float) -> Point:
        """Return the pixel of a pair of values."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1.0)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0)
        return self.left + across * self.width, self.top + (1 - up) * self.height

    def line(self, start: Point, end: Point, colour: str = "line", dash: str = "") -> str:
        """Return a straight line between two pairs of values."""
        return path([self.place(*start), self.place(*end)], colour, dash=dash)

    def x_axis(self, name: str, *, grid: bool = False) -> list[str]:
        """Return ticks and name of the horizontal axis, and grid lines if asked for."""
        parts = []
        for value in nice_ticks(*self.x):
            x, _ = self.place(value, 0)
            parts.append(path([(x, self.top if grid else self.bottom), (x, self.bottom + 4)], "line"))
            parts.append(label(x, self.bottom + 18, number(value), anchor="middle"))
        return [*parts, label(self.left + self.width / 2, self.bottom + 36, name, anchor="middle")]

    def y_axis(self, name: str) -> list[str]:
        """Return grid lines, ticks and name of the vertical axis."""
        parts = []
        for value in nice_ticks(*self.y):
            _, y = self.place(0, value)
            parts += [
                path([(self.left, y), (self.right, y)], "line"),
                label(self.left - 8, y + 4, number(value), anchor="end"),
            ]
        return [*parts, label(14, self.top + self.height / 2, name, anchor="middle", turn=-90)]


def interval_bar(frame: Frame, interval: Mapping[str, Any], y: float) -> list[str]:
    """Return a value as a dot on the bar of its interval, at the height of pixel *y*; nothing where it is undefined."""
    value, low, high = (interval.get(key) for key in ("value", "low", "high"))
    if value is None:
        return []
    bar = []
    if low is not None and high is not None:
        bar = [path([(frame.place(end, 0)[0], y) for end in (low, high)], "accent", width=5, opacity=0.45)]
    return [*bar, dot(frame.place(value, 0)[0], y, 5, "accent")]
