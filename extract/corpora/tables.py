"""Tables of a corpus, read strictly: an open quote or an unquoted delimiter would move labels to other images."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from extract.corpora.texts import misfit, read_text, refuse_twice
from extract.errors import CorpusError
from extract.inputs.trees import Tree
from features_store.errors import unknown_name

# Python's float() would also read underscores, digits of other scripts, "nan" and "infinity".
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


class Table:
    """Rows of cells, each with the line of the file on which it begins; every error names file and line.

    `place` is the name of the file in errors; the advice in them is another one for the user's `own` table.
    """

    def __init__(
        self, place: Any, header: list[str], rows: list[list[str]], lines: list[int], *, own: bool = False
    ) -> None:
        self.place, self.header, self.rows, self.lines, self._own = place, header, rows, lines, own
        self.inside: list[tuple[int, list[str]]] = []  # lines within a quoted cell that would be rows by themselves

    def __len__(self) -> int:
        return len(self.rows)

    def cells(self, column: int) -> list[str]:
        """Return a column without blanks, in Unicode form NFC; rows that are too short end in empty cells."""
        cells = [plain_cell(row[column]) if column < len(row) else "" for row in self.rows]
        for row, cell in enumerate(cells):
            if "\n" in cell:
                self.refuse(row, "a cell of one line (is a quote left open?)", cell, column=column)
        return cells

    def position(self, *names: str, remedy: str = "", case: bool = False) -> int:
        """Return which column has one of these titles; without `case`, a title may differ in case."""
        exact = [plain_cell(title) for title in self.header]
        wanted = [plain_cell(name) for name in names]
        folded = [([title.casefold() for title in exact], [name.casefold() for name in wanted])]
        for titles, given in [(exact, wanted), *([] if case else folded)]:
            for name in given:
                if titles.count(name) > 1:
                    raise self.misfit(
                        None, expected=f"one column {name!r}", found=f"more than one column {name!r}", remedy=remedy
                    )
                if name in titles:
                    return titles.index(name)
        if case:
            raise CorpusError(unknown_name(f"column of {self.place}", names[0], self.header))
        listed = " or ".join(repr(name) for name in names)
        raise self.misfit(None, expected=f"a column {listed}", found=", ".join(self.header), remedy=remedy)

    def numbers(
        self, column: int, *, remedy: str = "", empty: Sequence[str] = ("",), comma: bool = True
    ) -> NDArray[np.float64]:
        """Return a column of numbers that float32 can hold; NaN for cells in `empty`; `comma` allows decimal commas."""
        values = np.full(len(self.rows), np.nan)
        for row, cell in enumerate(self.cells(column)):
            if cell in empty:
                continue
            text = cell.replace(",", ".") if comma else cell
            if not NUMBER.fullmatch(text) or not abs(float(text)) <= float(np.finfo(np.float32).max):
                self.refuse(row, "a number", cell, remedy, column=column)
            values[row] = float(text)
        return values

    def refuse_swallowed(self, column: int, is_image: Callable[[str], bool]) -> None:
        """Refuse a table in which a quoted cell holds what would be the row of an image.

        Raises CorpusError.
        """
        for line, cells in self.inside:
            if is_image(plain_cell(cells[column])):
                expected = "a row of its own (a quote that opens on a line before closes on this line or behind it)"
                found = f"it within a quoted cell: {','.join(cells)}"
                raise misfit(self.place, line, expected=expected, found=found, own=self._own)

    def refuse_twice(self, names: Sequence[str], remedy: str = "") -> None:
        """Refuse a table that names an image twice."""
        refuse_twice(self.place, names, self.lines, remedy=remedy, own=self._own)

    def refuse(self, row: int, expected: str, found: str, remedy: str = "", *, column: int | None = None) -> NoReturn:
        """Raise the error for a row, or for its cell in `column`."""
        if column is not None:
            title = self.header[column] if column < len(self.header) else f"#{column + 1}"
            expected = f"{expected} in column {title!r}"
        raise self.misfit(row, expected=expected, found=found, remedy=remedy)

    def misfit(self, row: int | None, *, expected: str, found: str, remedy: str = "") -> CorpusError:
        """Return the error for a row; None = the header."""
        line = self.lines[row] if row is not None else self.lines[-1] if self.lines and not self.header else 1
        return misfit(self.place, line, expected=expected, found=found, remedy=remedy, own=self._own)


def read_table(
    tree: Tree,
    path: str,
    *,
    delimiter: str = ",",
    quote: str = '"',
    encoding: str = "",
    is_header: Callable[[list[str]], bool] | None = None,
    expected: str = "a header and at least one row",
    titled: bool = True,
    own: bool = False,
    remedy: str = "",
) -> Table:
    """Read a table; without a delimiter, blanks separate cells.

    The header is the first row, or the first for which `is_header` is true; without `titled` there is no header, and
    rows may have any width. Published tables may have blanks before a quote and empty cells beyond the header; the
    user's `own` table may not.
    """
    place, text = tree.place / path, read_text(tree, path, encoding)
    table = Table(place, [], [], [], own=own)
    for line, cells in _rows_of_cells(place, text, delimiter, quote, own=own, remedy=remedy):
        if titled and not table.header:
            if is_header is None or is_header(cells):
                table.header = [cell.strip() for cell in cells]
            continue
        more, fewer = cells[len(table.header) :], table.header[len(cells) :]
        if titled and (more or fewer) and (own or any(cell.strip() for cell in (*more, *fewer))):
            width = f"as many cells as the header has ({len(table.header)}), in quotes where a cell holds {delimiter!r}"
            found = f"{len(cells)} cells: {delimiter.join(cells)}"
            raise misfit(place, line, expected=width, found=found, remedy=remedy, own=own)
        table.rows.append(cells)
        table.lines.append(line)
        if own and any("\n" in cell for cell in cells):
            table.inside += _rows_inside(text, line, cells, delimiter, quote)
    if not table.rows:
        raise misfit(place, 1, expected=expected, found=text.split("\n", 1)[0], remedy=remedy, own=own)
    return table


def _rows_of_cells(
    place: Any, text: str, delimiter: str, quote: str, *, own: bool, remedy: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with the line of the file on which it begins."""
    if not delimiter:
        yield from ((line, row.split()) for line, row in enumerate(text.split("\n"), start=1) if row.strip())
        return
    begins = 1
    try:
        reader = csv.reader(
            io.StringIO(text), delimiter=delimiter, quotechar=quote, skipinitialspace=not own, strict=True
        )
    except (TypeError, ValueError) as error:
        raise misfit(
            place, 0, expected="one character as --option delimiter=", found=delimiter, remedy=remedy, own=own
        ) from error
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        expected = (
            f"every quote ({quote}) on or after this line closed, no text behind a closing one, and a quote inside a "
            "quoted cell written twice"
        )
        raise misfit(place, begins, expected=expected, found=str(error), remedy=remedy, own=own) from error


def _rows_inside(
    text: str, begins: int, cells: list[str], delimiter: str, quote: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a row behind its first that have as many cells as it has."""
    n_more = sum(cell.count("\n") for cell in cells)
    for line, content in enumerate(text.split("\n")[begins : begins + n_more], start=begins + 1):
        alone = next(csv.reader([content], delimiter=delimiter, quotechar=quote), [])
        if len(alone) == len(cells):
            yield line, alone


def plain_cell(cell: str) -> str:
    """Return a cell without blanks around it, in Unicode form NFC."""
    cell = cell.strip()
    return cell if cell.isascii() else unicodedata.normalize("NFC", cell)
