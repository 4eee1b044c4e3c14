"""An ablation as a table of text and as a chart: subsets with their intervals, and what each block adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classify.errors import RunError
from classify.json_file import check_new, read_regular
from classify.pages.leaderboard import interval_text, metric_title
from classify.pages.svg import STYLE, Frame, label, nice_ticks, number, shorten, svg
from classify.runs.report_json import UNDEFINED, shown_metrics
from features_store.atomic import atomic_write
from features_store.errors import AffectoryError

__all__ = ["ablation_chart", "ablation_text", "check_chart", "write_chart"]

_ENDING = " of each subset of blocks"  # of a chart's title
_ROWS = 24  # subsets that the chart has room for


def ablation_text(found: Mapping[str, Any], *, rows: int | None = None) -> str:
    """Lay out an ablation: one line for each subset, the best first, then the gains."""
    names = [n for n in shown_metrics(found["kind"], found["classes"]) if n in found["baseline"]]
    title = (
        f"{found['corpus']} · {found['task']} ({found['kind']}): {found['head']} on {found['n_images']} images, "
        f"{found['folds']}-fold cross-validation within the training and validation parts of {found['split']}"
    )
    path = found["path"]
    table = [["blocks", *([path["option"]] if path else []), *map(metric_title, names)]]
    for subset in found["subsets"][:rows]:
        cells = [interval_text(subset["metrics"][name]) for name in names]
        value = [f"{subset['chosen'][path['option']]:g}"] if path else []
        table.append([" + ".join(subset["blocks"]), *value, *cells])
    table.append(["majority", *([""] if path else []), *(interval_text(found["baseline"][name]) for name in names)])
    metric = metric_title(found["metric"])
    choice = f"best of {tried_words(found)} on the images that chose it; no value free of that choice was computed"
    sums = [[f"better {metric} by", "alone", "on average", "on top of the others"]]
    for block, gains in found["gains"].items():
        sums.append([block, *(_gain(gains[key]) for key in ("alone", "on_average", "on_top_of_the_others"))])
    stamp = [f"  ! {found['crossing']['words']}"] if found["crossing"] else []
    lines = [title, *_columns(table), f"  {choice}", *stamp, "", *_columns(sums)]
    if found["pairs"] and len(found["blocks"]) > 2:
        lines += ["", *_columns(_pair_table(found, metric))]
    n_marks = 3 * len(found["gains"]) + len(found["pairs"])
    blind = "the answers of all blocks dealt to the images at random"
    if not found["greater_is_better"]:
        blind = "the mean label"
    marks = f"*: the 95% interval leaves out 0, of {n_marks} intervals, not corrected for their number"
    lines += ["", f"  alone: over {blind}; {marks}"]
    return "\n".join(lines)


def tried_words(found: Mapping[str, Any]) -> str:
    """Say how many results stood to choose."""
    n, path = len(found["subsets"]), found["path"]
    if not path:
        return str(n)
    return f"{n * len(path['values'])} ({n} sets of blocks x {len(path['values'])} values of {path['option']})"


def _pair_table(found: Mapping[str, Any], metric: str) -> list[list[str]]:
    """Row: the block that is there; column: the block that is added to it."""
    blocks = list(found["blocks"])
    gains = {(pair["to"], pair["added"]): pair for pair in found["pairs"]}
    table = [[f"{metric}, adding", *blocks]]
    for one in blocks:
        cells = ["·" if one == other else _gain(gains[one, other], short=True) for other in blocks]
        table.append([f"to {one}", *cells])
    return table


def _gain(gain: Mapping[str, float | None], *, short: bool = False) -> str:
    value, low, high = gain["value"], gain["low"], gain["high"]
    if value is None:
        return "–"
    if low is None or high is None:
        return f"{value:+.3f}"
    mark = "*" if low > 0 or high < 0 else ""
    return f"{value:+.3f}{mark}" if short else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]{mark}"


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip() for row in table
    ]


def ablation_chart(found: Mapping[str, Any]) -> str:
    """Draw the subsets as bars of intervals over a dot for each block that they hold: SVG that stands alone.

    Of more than 24 subsets the best are drawn. The broken line is the majority baseline.
    """
    blocks, metric = list(found["blocks"]), found["metric"]
    subsets = found["subsets"][:_ROWS]
    intervals = [subset["metrics"][metric] for subset in subsets]
    baseline = found["baseline"][metric]["value"]
    ends = [end for one in intervals for key in UNDEFINED if (end := one[key]) is not None] + [baseline or 0.0]
    air = 0.06 * (max(ends) - min(ends)) or 0.05
    step: float = 22.0
    top = 40 + 4.6 * max(len(shorten(name, 24)) for name in blocks)
    left = 20.0 + 26 * len(blocks)
    frame = Frame(left + 20, top, 380, step * len(subsets), (min(ends) - air, max(ends) + air), (0, 1))
    parts = _grid(frame, metric_title(metric))
    for i, name in enumerate(blocks):
        x = 20.0 + 26 * i + 8
        tilt = f' transform="rotate(-55 {x:.1f} {top - 8:.1f})"'
        parts.append(label(x, top - 8, shorten(name, 24), fill="ink", extra=tilt))
    for row, (subset, interval) in enumerate(zip(subsets, intervals, strict=True)):
        y = top + (row + 0.5) * step
        parts += _dots(blocks, subset["blocks"], y)
        parts += _bar(frame, interval, y)
    if baseline is not None:
        x, _ = frame.place(baseline, 0)
        parts.append(frame.line((x, top), (x, top + frame.height), stroke="second", dash="4 3"))
    height = top + frame.height + 46
    drawn = svg(left + 480, height, f"{found['task']}: {metric_title(metric)}{_ENDING}", parts)
    return drawn.replace("<title>", f"<style>{STYLE}</style><title>", 1)


def _grid(frame: Frame, title: str) -> list[str]:
    bottom, parts = frame.top + frame.height, []
    for value in nice_ticks(*frame.x):
        x, _ = frame.place(value, 0)
        parts.append(frame.line((x, frame.top), (x, bottom)))
        parts.append(label(x, bottom + 18, number(value), anchor="middle"))
    parts.append(label(frame.left + frame.width / 2, bottom + 38, title, anchor="middle"))
    return parts


def _dots(blocks: Sequence[str], members: Sequence[str], y: float) -> list[str]:
    held = [20 + 26 * i + 8 for i, name in enumerate(blocks) if name in members]
    parts = []
    if len(held) > 1:
        parts.append(f'<path d="M{held[0]} {y:.1f}H{held[-1]}" stroke="var(--accent)" stroke-width="2"/>')
    for i, name in enumerate(blocks):
        fill, size = ("accent", 5) if name in members else ("line", 3.5)
        parts.append(f'<circle cx="{20 + 26 * i + 8}" cy="{y:.1f}" r="{size}" fill="var(--{fill})"/>')
    return parts


def _bar(frame: Frame, interval: Mapping[str, float | None], y: float) -> list[str]:
    value, low, high = interval["value"], interval["low"], interval["high"]
    if value is None:
        return []
    bar = []
    if low is not None and high is not None:
        a, b = (frame.place(end, 0)[0] for end in (low, high))
        bar.append(
            f'<path d="M{a:.1f} {y:.1f}H{b:.1f}" stroke="var(--accent)" stroke-width="5" stroke-linecap="round" '
            'stroke-opacity=".45"/>'
        )
    c = frame.place(value, 0)[0]
    return [
        *bar,
        f'<circle cx="{c:.1f}" cy="{y:.1f}" r="5" fill="var(--accent)"/>',
        label(frame.left + frame.width + 10, y + 4, f"{value:.3f}", fill="ink"),
    ]


def check_chart(path: Path, *, force: bool) -> None:
    """Refuse a file that is there, unless it is a chart whose ablation a killed process didn't come to write.

    Raises ExistsError.
    """
    if not path.is_file() or force:
        check_new(path, force=force)
        return
    if _ENDING.encode() not in read_regular(path)[:2000]:
        check_new(path, force=False)


def write_chart(path: Path, chart: str, *, force: bool = False) -> None:
    """Write a chart, whole or not at all.

    Raises ExistsError, RunError.
    """
    try:
        with atomic_write(path, force=force) as temporary:
            temporary.write_text(chart, encoding="utf-8")
    except AffectoryError:
        raise
    except OSError as error:
        message = f"can't write the chart {path}: {error.strerror or error}"
        raise RunError(message) from error
