"""Columns of a table to labels and splits, with errors that name row and value."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from extract.corpora.cells import NUMBER, plain
from extract.corpora.folders import PARTS
from extract.corpora.vocabulary import class_codes
from extract.errors import CorpusError
from features_store import Labels, Split, Task
from features_store.errors import unknown_name

_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
_LIKELY_NONE = ("nan", "na", "n/a", "null", "none", "-", ".", "?")  # only to word an error
_LARGEST = float(np.finfo(np.float32).max)


class Rows:
    """The cells of a table, by row and column name, blanks around them taken off.

    Parameters
    ----------
    name : str
        For messages.
    body : list of lists of str
        Each as long as the header.
    lines : list of int
        The line of the file on which each row begins.
    """

    def __init__(self, name: str, header: list[str], body: list[list[str]], lines: list[int]) -> None:
        self.name, self.lines = name, lines
        self._body = body
        titles = [plain(title) for title in header]
        self._columns = {title: at for at, title in enumerate(titles)}
        self._twice = {title for title, n in Counter(titles).items() if n > 1}

    def __len__(self) -> int:
        return len(self._body)

    def __contains__(self, column: str) -> bool:
        return plain(column) in self._columns

    def at(self, column: str) -> int:
        """Return the position of a column.

        Raises CorpusError.
        """
        title = plain(column)
        if title not in self._columns:
            raise CorpusError(unknown_name(f"column of {self.name}", column, self._columns))
        if title in self._twice:
            msg = f"{self.name} has more than one column {column!r}; give each a title of its own"
            raise CorpusError(msg)
        return self._columns[title]

    def cell(self, row: int, column: str) -> str:
        """Return one cell, blanks around it taken off, in Unicode form NFC.

        Raises CorpusError.
        """
        cell = plain(self._body[row][self.at(column)])
        if "\n" in cell:
            self.refuse(row, column, "a cell of one line (is a quote left open?)", cell)
        return cell

    def column(self, name: str) -> list[str]:
        """Return all cells of a column."""
        return [self.cell(row, name) for row in range(len(self))]

    def numbered(self, name: str) -> NDArray[np.int64]:
        """Number the values of a column as groups; an empty cell is -1: (n_rows,) int64."""
        numbers: dict[str, int] = {}
        cells = self.column(name)
        return np.array([numbers.setdefault(cell, len(numbers)) if cell else -1 for cell in cells], dtype=np.int64)

    def refuse(self, row: int, column: str, wanted: str, found: str | None = None) -> NoReturn:
        """Raise the error for a cell; `row` counts from 0, the message names the line of the file."""
        found = self.cell(row, column) if found is None else found
        hint = f"; if it means no label, give --option none={found}" if found.lower() in _LIKELY_NONE else ""
        msg = f"{self.name}, line {self.lines[row]}, column {column!r}: {found[:200]!r} is not {wanted}{hint}"
        raise CorpusError(msg)


@dataclass(frozen=True)
class _Wanted:
    """One task as an option words it: ``TASK=COLUMN|COLUMN@1..9``."""

    task: str
    columns: tuple[str, ...]
    range: tuple[float, float] | None


def labels_of(rows: Rows, kind: str, option: str, *, none: Set[str] = frozenset()) -> list[Labels]:
    """Read the tasks of one kind.

    Raises CorpusError.
    """
    make = {"single": _single, "multi": _multi, "regression": _regression}[kind]
    return [make(rows, _wanted(text, kind), none) for text in option.split(",") if text.strip()]


def split_of(rows: Rows, column: str) -> Split:
    """Read a split: names of parts, or numbers of folds; an empty cell is unused."""
    cells = [cell.lower() for cell in rows.column(column)]
    if all(re.fullmatch("[0-9]{1,6}", cell) for cell in cells if cell):
        return Split("default", np.array([int(cell) if cell else -1 for cell in cells]), "folds", "published")
    for row, cell in enumerate(cells):
        if cell and cell not in PARTS:
            rows.refuse(row, column, f"a part ({', '.join(PARTS)}), nor are all cells fold numbers")
    return Split(
        "default", np.array([PARTS[cell] if cell else -1 for cell in cells], dtype=np.int8), source="published"
    )


def _wanted(text: str, kind: str) -> _Wanted:
    task, equals, rest = text.strip().partition("=")
    columns = rest if equals else task
    scale = re.fullmatch(r"(.*)@(-?[\d.]+)\.\.(-?[\d.]+)", columns) if kind == "regression" else None
    ends = (float(scale[2]), float(scale[3])) if scale else None
    listed = tuple(one.strip() for one in (scale[1] if scale else columns).split("|"))
    # A column title may hold what a task's name may not; the task is then named after what is left of it.
    name = task.strip() if equals else re.sub(r"[^A-Za-z0-9_.-]+", "_", listed[0]).strip("_.-")
    return _Wanted(name, listed, ends)


def _labels(rows: Rows, column: str, none: Set[str]) -> list[str]:
    """Return the cells of a column, "" where there is no label.

    Raises CorpusError.
    """
    cells = ["" if cell in none else cell for cell in rows.column(column)]
    if not any(cells):
        msg = f"{rows.name}: column {column!r} holds no label; is it the right one?"
        raise CorpusError(msg)
    return cells


def _single(rows: Rows, wanted: _Wanted, none: Set[str]) -> Labels:
    column = wanted.columns[0]
    classes, values = class_codes(_labels(rows, column, none), f"{rows.name}, column {column!r}")
    return Labels(Task(wanted.task, "single", classes, source=f"column {column}"), values)


def _multi(rows: Rows, wanted: _Wanted, none: Set[str]) -> Labels:
    columns = [[cell.lower() for cell in _labels(rows, column, none)] for column in wanted.columns]
    if len(columns) == 1 and not all(cell in (*_TRUE, *_FALSE) for cell in columns[0] if cell):
        return _multi_of_names(rows, wanted, none)
    values = np.full((len(rows), len(columns)), 255, dtype=np.uint8)
    for row, cells in enumerate(zip(*columns, strict=True)):
        if not any(cells):
            continue
        for at, cell in enumerate(cells):
            if cell not in _TRUE + _FALSE:
                rows.refuse(row, wanted.columns[at], "0 or 1 (an image without labels has all of them empty)")
            values[row, at] = cell in _TRUE
    return Labels(Task(wanted.task, "multi", wanted.columns, source=f"columns {', '.join(wanted.columns)}"), values)


def _multi_of_names(rows: Rows, wanted: _Wanted, none: Set[str]) -> Labels:
    words = _labels(rows, wanted.columns[0], none)
    cells = [[one.strip() for one in re.split(r"[;|]", word) if one.strip()] for word in words]
    classes = tuple(sorted({one for cell in cells for one in cell}))
    values = np.array([[name in cell for name in classes] if cell else [255] * len(classes) for cell in cells])
    task = Task(wanted.task, "multi", classes, source=f"names in column {wanted.columns[0]}")
    return Labels(task, values.astype(np.uint8))


def _regression(rows: Rows, wanted: _Wanted, none: Set[str]) -> Labels:
    values = np.full((len(rows), len(wanted.columns)), np.nan, dtype=np.float32)
    for at, column in enumerate(wanted.columns):
        for row, cell in enumerate(_labels(rows, column, none)):
            values[row, at] = _number(rows, row, column, cell) if cell else math.nan
    ends = wanted.range or _observed(values)
    outside = np.flatnonzero(((values < ends[0]) | (values > ends[1])).any(axis=1))
    if len(outside):
        rows.refuse(int(outside[0]), wanted.columns[0], f"within the scale {ends[0]:g}..{ends[1]:g}")
    source = f"columns {', '.join(wanted.columns)}" + ("" if wanted.range else "; scale = observed ends")
    return Labels(Task(wanted.task, "regression", wanted.columns, ends, source), values)


def _number(rows: Rows, row: int, column: str, cell: str) -> float:
    number = float(cell) if NUMBER.fullmatch(cell) else math.inf
    if not abs(number) <= _LARGEST:
        rows.refuse(row, column, "a number")
    return number


def _observed(values: Any) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known) or known.min() == known.max():
        return (0.0, 1.0) if not len(known) else (float(known[0]) - 0.5, float(known[0]) + 0.5)
    return float(known.min()), float(known.max())
