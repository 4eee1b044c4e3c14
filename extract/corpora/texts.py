"""Lists and tables as text: whatever their line ends, byte-order mark and encoding, with the numbers of their lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from extract.corpora.cells import NUMBER, BrokenTableError, plain, rows_of_cells, width_misfit
from extract.errors import CorpusError
from extract.inputs.files import canonical
from extract.inputs.trees import Tree

BY_HAND = "or write a CSV table of your own and read it with corpus `csv`, whose columns are mapped by --option"


def misfit(tree: Tree, path: str, line: int, *, expected: str, found: str, remedy: str = "") -> CorpusError:
    """Word the error for a file that breaks its layout."""
    where = f"{tree.place / path}, line {line}" if line else f"{tree.place / path}"
    shown = found if len(found) <= 500 else f"{found[:500]}..."
    how = f"{remedy}; {BY_HAND}" if remedy else f"mend the file, {BY_HAND}"
    return CorpusError(f"{where}: expected {expected}; found {shown!r}; {how}")


def no_file(tree: Tree, pattern: str, *, layout: str) -> CorpusError:
    """Word the error for a file that is not there."""
    msg = (
        f"{tree.place} holds no file {pattern}; the official layout is {layout}; give its top folder, or its tar or zip"
    )
    return CorpusError(msg)


def text_of(tree: Tree, path: str, encoding: str = "") -> str:
    """Return a file as text, with ``\\n`` at the line ends and without byte-order mark.

    Parameters
    ----------
    encoding : str
        "" = UTF-8, or latin-1 where it is not valid UTF-8.
    """
    data = tree.read(path)
    try:
        text = data.decode(encoding or "utf-8-sig")
    except UnicodeDecodeError as error:
        if encoding:
            msg = f"{tree.place / path} is not {encoding}: {error.reason}; name another with --option encoding="
            raise CorpusError(msg) from error
        text = data.decode("latin-1")
    except LookupError as error:
        msg = f"there is no encoding {encoding!r}; common: utf-8, latin-1, cp1252"
        raise CorpusError(msg) from error
    # Old Macintosh files end their lines with a carriage return alone.
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def lines_of(tree: Tree, path: str, encoding: str = "") -> list[str]:
    """Return the lines of a file, the blanks at their ends taken off; empty lines stay, so that numbers fit."""
    return [line.strip() for line in text_of(tree, path, encoding).split("\n")]


def find_one(tree: Tree, patterns: Sequence[str], *, layout: str) -> str:
    """Return the one file that fits the first pattern that any file fits.

    Raises CorpusError.
    """
    for pattern in patterns:
        found = tree.find(pattern)
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(found[:5])
            msg = f"{tree.place} holds {len(found)} files {pattern} ({listed}); name one, or give the folder of one"
            raise CorpusError(msg)
    raise no_file(tree, " or ".join(patterns), layout=layout)


@dataclass(frozen=True)
class Table:
    """Rows of cells, and the line on which each row begins."""

    tree: Tree
    path: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    def cells(self, column: int) -> list[str]:
        """Return a column, blanks taken off, in Unicode form NFC; rows that are too short end in empty cells."""
        return [plain(row[column]) if column < len(row) else "" for row in self.rows]

    def position(self, *names: str, remedy: str) -> int:
        """Return which column has one of these names; case and blanks at the ends do not matter.

        Raises CorpusError.
        """
        exact = [plain(title) for title in self.header]
        for titles, given in (
            (exact, [plain(name) for name in names]),
            ([title.casefold() for title in exact], [plain(name).casefold() for name in names]),
        ):
            for name in given:
                if titles.count(name) > 1:
                    found = f"{titles.count(name)} of them"
                    raise self.misfit(None, expected=f"one column {name!r}", found=found, remedy=remedy)
                if name in titles:
                    return titles.index(name)
        listed = " or ".join(repr(name) for name in names)
        raise self.misfit(None, expected=f"a column {listed}", found=", ".join(self.header), remedy=remedy)

    def refuse_twice(self, names: Sequence[str], remedy: str = "") -> None:
        """Refuse a table that names an image twice.

        Raises CorpusError.
        """
        first: dict[str, int] = {}
        for row, name in enumerate(names):
            if first.setdefault(name, row) != row:
                self.refuse(
                    row, f"each image once ({name!r} stands on line {self.lines[first[name]]} too)", name, remedy
                )

    def misfit(self, row: int | None, *, expected: str, found: str, remedy: str = "") -> CorpusError:
        """Word the error for a row; None = the header."""
        line = self.lines[row] if row is not None else self.lines[-1] if self.lines and not self.header else 1
        return misfit(self.tree, self.path, line, expected=expected, found=found, remedy=remedy)

    def numbers(self, column: int, *, remedy: str, empty: Sequence[str] = ("",)) -> NDArray[np.float64]:
        """Return a column of numbers: (n_rows,) float64; cells in `empty` are NaN, a decimal comma is allowed.

        Raises CorpusError.
        """
        values = np.full(len(self.rows), np.nan)
        for row, cell in enumerate(self.cells(column)):
            if cell in empty:
                continue
            text = cell.replace(",", ".")
            if NUMBER.fullmatch(text) and math.isfinite(float(text)):
                values[row] = float(text)
            else:
                title = self.header[column] if column < len(self.header) else f"#{column + 1}"
                self.refuse(row, f"a number in column {title!r}", cell, remedy)
        return values

    def refuse(self, row: int, expected: str, found: str, remedy: str = "") -> NoReturn:
        """Raise the error for a row."""
        raise self.misfit(row, expected=expected, found=found, remedy=remedy)


def table_of(
    tree: Tree,
    path: str,
    *,
    delimiter: str = ",",
    quote: str = '"',
    encoding: str = "",
    is_header: Callable[[list[str]], bool] | None = None,
    expected: str = "a header and at least one row",
    ragged: bool = False,
) -> Table:
    """Read a table.

    Raises CorpusError.
    """
    rows: list[list[str]] = []
    numbers: list[int] = []
    header: list[str] | None = None
    text = text_of(tree, path, encoding)
    for number, cells in _cells(tree, path, text, delimiter, quote):
        if not any(cell.strip() for cell in cells):
            continue
        wrong = width_misfit(cells, header, lenient=True) if header is not None and not ragged else ""
        if wrong:
            expected = f"as many cells as in the header, in quotes where a cell holds {delimiter!r}"
            raise misfit(tree, path, number, expected=expected, found=f"{wrong}: {delimiter.join(cells)}")
        if header is None:
            if is_header is None or is_header(cells):
                header = [cell.strip() for cell in cells]
            continue
        rows.append(cells)
        numbers.append(number)
    if header is None or not rows:
        first = text.split("\n", 1)[0]
        raise misfit(tree, path, 1, expected=expected, found=first)
    return Table(tree, path, header, rows, numbers)


def _cells(tree: Tree, path: str, text: str, delimiter: str, quote: str) -> list[tuple[int, list[str]]]:
    if not delimiter:
        return [(number, line.split()) for number, line in enumerate(text.split("\n"), start=1)]
    try:
        return list(rows_of_cells(text, delimiter=delimiter, quote=quote, skip_blanks=True))
    except BrokenTableError as error:
        raise misfit(tree, path, error.line, expected="a table", found=str(error)) from error


def labelled_list(
    tree: Tree, path: str, codes: Mapping[str, int], *, expected: str, remedy: str = ""
) -> tuple[list[str], NDArray[np.int16]]:
    """Read lines of a path and a label code, parted by the last blank, tab or comma.

    Shapes: values (n_lines,) int16.
    Raises CorpusError.
    """
    lines = lines_of(tree, path)
    first = next((line for line in lines if line), "")
    # Names hold blanks and commas, codes do not: the last of the three parts them, the same on each line.
    separator = max("\t, ", key=first.rfind)
    names: list[str] = []
    values: list[int] = []
    numbers: list[int] = []
    for number, line in enumerate(lines, start=1):
        name, _, code = line.rpartition(separator)
        value = codes.get(code.strip('"'), -1)
        if value >= 0 and name:
            names.append(name)
            values.append(value)
            numbers.append(number)
        elif line and not (line is first and code.strip('"').isalpha() and not names):  # a header, if it is the first
            valid = ", ".join(codes)
            raise misfit(tree, path, number, expected=f"{expected}, code one of {valid}", found=line, remedy=remedy)
    if not names:
        raise misfit(tree, path, 1, expected=expected, found=first, remedy=remedy)
    listed = [canonical(name.strip().strip('"')) for name in names]
    seen: dict[str, int] = {}
    for name, number in zip(listed, numbers, strict=True):
        if seen.setdefault(name, number) != number:
            expected = f"each image once ({name!r} stands on line {seen[name]} too)"
            raise misfit(tree, path, number, expected=expected, found=name, remedy=remedy)
    return listed, np.array(values, dtype=np.int16)
