"""Text tables to rows of cells, strictly: an open quote or a cell too many would move labels to other rows."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence

# Python's float() would read underscores, other scripts' digits, "nan" and "infinity", too.
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


class BrokenTableError(ValueError):
    """A table that cannot be parted into cells.

    Parameters
    ----------
    line : int
        Of the file, from 1; 0 = the table as a whole.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def plain(cell: str) -> str:
    """Return a cell without blanks around it, in Unicode form NFC."""
    cell = cell.strip()
    return cell if cell.isascii() else unicodedata.normalize("NFC", cell)


def rows_of_cells(
    text: str, *, delimiter: str = ",", quote: str = '"', skip_blanks: bool = False
) -> Iterator[tuple[int, list[str]]]:
    r"""Yield the rows that are not empty, each with the line of the file on which it begins.

    Parameters
    ----------
    text : str
        With ``\n`` at the line ends.
    delimiter : str
        One character.
    skip_blanks : bool
        Blanks after a delimiter do not count.

    Raises
    ------
    BrokenTableError
        If a quote does not close, text stands behind a closing quote, or the delimiter is none.
    """
    begins = 1
    try:
        reader = csv.reader(
            io.StringIO(text), delimiter=delimiter, quotechar=quote, skipinitialspace=skip_blanks, strict=True
        )
    except (TypeError, ValueError) as error:
        raise BrokenTableError(0, str(error)) from error
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        reason = (
            f"a quote ({quote}) on or after this line is not closed, or text stands behind a closing one ({error}); "
            "write a quote inside a quoted cell twice"
        )
        raise BrokenTableError(begins, reason) from error


def width_misfit(cells: Sequence[str], header: Sequence[str], *, lenient: bool = False) -> str:
    """Return what is wrong with the number of cells of a row; "" = nothing."""
    more, fewer = cells[len(header) :], header[len(cells) :]
    if not more and not fewer:
        return ""
    if lenient and not any(cell.strip() for cell in (*more, *fewer)):
        return ""
    return f"{len(cells)} cells, and the header has {len(header)}"
