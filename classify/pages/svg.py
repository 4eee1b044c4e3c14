"""The few strokes that the plots are drawn with: a scaled frame in SVG, whose colours follow the page's theme."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape

__all__ = ["STYLE", "Frame", "label", "nice_ticks", "number", "shorten", "svg"]

STYLE = (
    ":root{--paper:#fff;--ink:#1a1d21;--muted:#5c6570;--line:#d9dee4;--accent:#1f5fae;--second:#c2571a;--shade:#1f5fae}"
    "@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e8eaed;--muted:#9aa4b0;--line:#343b44;"
    "--accent:#7fb2f0;--second:#f0a36b;--shade:#4d8fdc}}"
    "svg{font:12px system-ui,sans-serif}"
)
"""Colours for a figure that stands alone; within a page, the page's own style sets them."""


def svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """Wrap *parts* as one SVG image of the given size in pixels, with *title* for those who can't see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def label(x: float, y: float, text: str, *, anchor: str = "start", fill: str = "muted", extra: str = "") -> str:
    """Return a line of text at (*x*, *y*), in pixels; *extra* is more attributes, as they are."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="var(--{fill})"{extra}>{escape(text)}</text>'


def number(value: float) -> str:
    """Write a tick's number without superfluous digits."""
    return f"{value:.4g}".replace("-", "−")


def shorten(text: str, length: int) -> str:
    """Cut *text* to *length* characters, the last of them an ellipsis where something is missing."""
    return text if len(text) <= length else text[: length - 1] + "…"


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
    """A rectangle of pixels with a range of values on each side.

    Parameters
    ----------
    left, top, width, height : float
        The rectangle, in pixels.
    x, y : (float, float)
        The values at its ends: left and right, bottom and top.
    """

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixel of a pair of values."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1.0)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0)
        return self.left + across * self.width, self.top + (1 - up) * self.height

    def axes(self, x_name: str, y_name: str, *, n_ticks: int = 5) -> list[str]:
        """Return grid lines, ticks and names of both axes."""
        parts = []
        right, bottom = self.left + self.width, self.top + self.height
        for value in nice_ticks(*self.y, n_ticks):
            _, y = self.place(self.x[0], value)
            parts.append(self.line((self.left, y), (right, y)))
            parts.append(label(self.left - 8, y + 4, number(value), anchor="end"))
        for value in nice_ticks(*self.x, n_ticks):
            x, _ = self.place(value, self.y[0])
            parts.append(self.line((x, bottom), (x, bottom + 4)))
            parts.append(label(x, bottom + 18, number(value), anchor="middle"))
        middle = self.top + self.height / 2
        parts.append(label(self.left + self.width / 2, bottom + 36, x_name, anchor="middle"))
        turn = f' transform="rotate(-90 14 {middle:.1f})"'
        parts.append(label(14, middle, y_name, anchor="middle", extra=turn))
        return parts

    @staticmethod
    def line(start: tuple[float, float], end: tuple[float, float], *, stroke: str = "line", dash: str = "") -> str:
        """Return a straight stroke between two pixels."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        return (
            f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
            f'stroke="var(--{stroke})"{dashed}/>'
        )


__all__ = ["fit_bar"]


@contextmanager
def fit_bar(unit: str) -> Iterator[Callable[[int, int], object]]:
    """Give a function that takes how many of how many are done, and draws that after two seconds."""
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", delay=2, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance
