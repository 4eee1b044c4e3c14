"""Columns of a table to labels and splits, with errors that name row and value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from extract.corpora.folders import PARTS
from extract.errors import CorpusError
from features_store import Labels, Split, Task
from features_store.errors import unknown_name

_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
_NONE = ("", "nan", "na", "n/a", "null", "none")


class Rows:
    """The cells of a table, by row and column name, blanks around them taken off.

    Parameters
    ----------
    name : str
        For messages.
    header : list of str
    body : list of lists of str
        Rows shorter than the header end in empty cells.
    """

    def __init__(self, name: str, header: list[str], body: list[list[str]]) -> None:
        self.name = name
        self._body = body
        self._columns = {title.strip(): at for at, title in enumerate(header)}

    def __len__(self) -> int:
        return len(self._body)

    def __contains__(self, column: str) -> bool:
        return column in self._columns

    def cell(self, row: int, column: str) -> str:
        """Return one cell.

        Raises
        ------
        CorpusError
            If there is no such column; the message lists those that are.
        """
        if column not in self._columns:
            raise CorpusError(unknown_name(f"column of {self.name}", column, self._columns))
        at = self._columns[column]
        return self._body[row][at].strip() if at < len(self._body[row]) else ""

    def column(self, name: str) -> list[str]:
        """Return all cells of a column."""
        return [self.cell(row, name) for row in range(len(self))]

    def numbered(self, name: str) -> NDArray[np.int64]:
        """Number the values of a column as groups; an empty cell is -1: (n_rows,) int64."""
        numbers: dict[str, int] = {}
        cells = self.column(name)
        return np.array([numbers.setdefault(cell, len(numbers)) if cell else -1 for cell in cells], dtype=np.int64)

    def refuse(self, row: int, column: str, wanted: str) -> NoReturn:
        """Raise the error for a cell; `row` counts from 0, the message as people do, header first."""
        msg = f"{self.name}, row {row + 2}, column {column!r}: {self.cell(row, column)!r} is not {wanted}"
        raise CorpusError(msg)


@dataclass(frozen=True)
class _Wanted:
    """One task as an option words it: ``TASK=COLUMN|COLUMN@1..9``."""

    task: str
    columns: tuple[str, ...]
    range: tuple[float, float] | None


def labels_of(rows: Rows, kind: str, option: str) -> list[Labels]:
    """Read the tasks of one kind.

    Parameters
    ----------
    rows : Rows
    kind : {"single", "multi", "regression"}
    option : str
        Tasks parted by ``,``; "" = none.

    Raises
    ------
    CorpusError
        For an unknown column or a value that does not fit.
    """
    make = {"single": _single, "multi": _multi, "regression": _regression}[kind]
    return [make(rows, _wanted(text, kind)) for text in option.split(",") if text.strip()]


def split_of(rows: Rows, column: str) -> Split:
    """Read a split: names of parts, or numbers of folds; an empty cell is unused."""
    cells = [cell.lower() for cell in rows.column(column)]
    if all(cell.isascii() and cell.isdigit() for cell in cells if cell):
        return Split("default", np.array([int(cell) if cell else -1 for cell in cells]), kind="folds")
    for row, cell in enumerate(cells):
        if cell and cell not in PARTS:
            rows.refuse(row, column, f"a part ({', '.join(PARTS)}), nor are all cells fold numbers")
    return Split("default", np.array([PARTS[cell] if cell else -1 for cell in cells], dtype=np.int8))


def _wanted(text: str, kind: str) -> _Wanted:
    task, equals, rest = text.strip().partition("=")
    columns = rest if equals else task
    scale = re.fullmatch(r"(.*)@(-?[\d.]+)\.\.(-?[\d.]+)", columns) if kind == "regression" else None
    ends = (float(scale[2]), float(scale[3])) if scale else None
    listed = tuple(one.strip() for one in (scale[1] if scale else columns).split("|"))
    # A column title may hold what a task's name may not; the task is then named after what is left of it.
    name = task.strip() if equals else re.sub(r"[^A-Za-z0-9_.-]+", "_", listed[0]).strip("_.-")
    return _Wanted(name, listed, ends)


def _single(rows: Rows, wanted: _Wanted) -> Labels:
    cells = rows.column(wanted.columns[0])
    classes = tuple(sorted({cell for cell in cells if cell.lower() not in _NONE}))
    position = {name: at for at, name in enumerate(classes)}
    values = np.array([position.get(cell, -1) for cell in cells], dtype=np.int16)
    return Labels(Task(wanted.task, "single", classes, source=f"column {wanted.columns[0]}"), values)


def _multi(rows: Rows, wanted: _Wanted) -> Labels:
    if len(wanted.columns) == 1:
        return _multi_of_names(rows, wanted)
    values = np.full((len(rows), len(wanted.columns)), 255, dtype=np.uint8)
    for row in range(len(rows)):
        cells = [rows.cell(row, column).lower() for column in wanted.columns]
        if all(cell in _NONE for cell in cells):
            continue
        for at, cell in enumerate(cells):
            if cell not in _TRUE + _FALSE:
                rows.refuse(row, wanted.columns[at], "0 or 1 (an image without labels has all of them empty)")
            values[row, at] = cell in _TRUE
    return Labels(Task(wanted.task, "multi", wanted.columns, source=f"columns {', '.join(wanted.columns)}"), values)


def _multi_of_names(rows: Rows, wanted: _Wanted) -> Labels:
    cells = [[one.strip() for one in re.split(r"[;|]", cell) if one.strip()] for cell in rows.column(wanted.columns[0])]
    classes = tuple(sorted({one for cell in cells for one in cell}))
    values = np.array([[name in cell for name in classes] if cell else [255] * len(classes) for cell in cells])
    task = Task(wanted.task, "multi", classes, source=f"names in column {wanted.columns[0]}")
    return Labels(task, values.astype(np.uint8))


def _regression(rows: Rows, wanted: _Wanted) -> Labels:
    values = np.full((len(rows), len(wanted.columns)), np.nan, dtype=np.float32)
    for at, column in enumerate(wanted.columns):
        for row in range(len(rows)):
            values[row, at] = _number(rows, row, column)
    ends = wanted.range or _observed(values)
    outside = np.flatnonzero(((values < ends[0]) | (values > ends[1])).any(axis=1))
    if len(outside):
        rows.refuse(int(outside[0]), wanted.columns[0], f"within the scale {ends[0]:g}..{ends[1]:g}")
    source = f"columns {', '.join(wanted.columns)}" + ("" if wanted.range else "; scale = observed ends")
    return Labels(Task(wanted.task, "regression", wanted.columns, ends, source), values)


def _number(rows: Rows, row: int, column: str) -> float:
    cell = rows.cell(row, column)
    if cell.lower() in _NONE:
        return math.nan
    try:
        number = float(cell)
    except ValueError:
        number = math.inf
    if not math.isfinite(number):
        rows.refuse(row, column, "a number")
    return number


def _observed(values: Any) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known) or known.min() == known.max():
        return (0.0, 1.0) if not len(known) else (float(known[0]) - 0.5, float(known[0]) + 0.5)
    return float(known.min()), float(known.max())
