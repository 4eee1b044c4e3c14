"""Text files of a corpus, whatever their line ends, byte-order mark and encoding: found, read, and refused by line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import CorpusError
from extract.inputs.files import canonical
from extract.inputs.trees import Tree

BY_HAND = "or write a CSV table of your own and read it with corpus `csv`, whose columns are mapped by --option"


def misfit(place: Any, line: int, *, expected: str, found: str, remedy: str = "", own: bool = False) -> CorpusError:
    """Return the error for a file that breaks its layout; line 0 = the whole file, `own` = the user's own table."""
    where = f"{place}, line {line}" if line else f"{place}"
    shown = found if len(found) <= 500 else f"{found[:500]}..."
    advice = remedy or "correct the file"
    advice += "" if own else f"{'; ' if remedy else ', '}{BY_HAND}"
    return CorpusError(f"{where}: expected {expected}; found {shown!r}; {advice}")


def no_file(tree: Tree, pattern: str, *, layout: str) -> CorpusError:
    """Return the error for a file that is not there."""
    return CorpusError(
        f"{tree.place} holds no file {pattern}; the official layout is {layout}; give its top folder, or its tar or zip"
    )


def find_one(tree: Tree, patterns: Sequence[str], *, layout: str) -> str:
    """Return the one file that fits the first pattern that any file fits."""
    for pattern in patterns:
        found = tree.find(pattern)
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(found[:5])
            raise CorpusError(
                f"{tree.place} holds {len(found)} files {pattern} ({listed}); name one, or give the folder of one"
            )
    raise no_file(tree, " or ".join(patterns), layout=layout)


def read_text(tree: Tree, path: str, encoding: str = "") -> str:
    r"""Read a file with ``\n`` at the line ends; without `encoding`: UTF-8, or latin-1 where it is not valid UTF-8."""
    data = tree.read(path)
    try:
        text = data.decode(encoding or "utf-8-sig")
    except UnicodeDecodeError as error:
        if encoding:
            raise CorpusError(
                f"{tree.place / path} cannot be read as {encoding}: {error.reason}; name its --option encoding="
            ) from error
        text = data.decode("latin-1")
    except LookupError as error:
        raise CorpusError(f"there is no encoding {encoding!r}; common: utf-8, latin-1, cp1252") from error
    # Files of old Macintoshes end their lines with a carriage return alone.
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_lines(tree: Tree, path: str) -> list[str]:
    """Read the lines of a file without blanks at their ends; empty lines stay, so that line numbers are right."""
    return [line.strip() for line in read_text(tree, path).split("\n")]


def refuse_twice(
    place: Any, names: Sequence[str], lines: Sequence[int], *, remedy: str = "", own: bool = False
) -> None:
    """Refuse a table or list that names an image twice."""
    first: dict[str, int] = {}
    for name, line in zip(names, lines, strict=True):
        if first.setdefault(name, line) != line:
            expected = f"each image once ({name!r} stands on line {first[name]} too)"
            raise misfit(place, line, expected=expected, found=name, remedy=remedy, own=own)


def read_labelled_list(
    tree: Tree, path: str, codes: Mapping[str, int], *, expected: str, remedy: str = ""
) -> tuple[list[str], NDArray[np.int16]]:
    """Read lines of an image path and a label code; a header is allowed."""
    place, lines = tree.place / path, read_lines(tree, path)
    first = next((line for line in lines if line), "")
    # Names may hold blanks and commas, codes do not: the last separator of the first line separates every line.
    separator = max("\t, ", key=first.rfind)
    names: list[str] = []
    values: list[int] = []
    numbers: list[int] = []
    for number, line in enumerate(lines, start=1):
        name, _, code = line.rpartition(separator)
        value = codes.get(code.strip('"'), -1)
        if value >= 0 and name:
            names.append(canonical(name.strip().strip('"')))
            values.append(value)
            numbers.append(number)
        elif line and not (line is first and code.strip('"').isalpha() and not names):  # a header is the first line
            valid = f"{expected}, code one of {', '.join(codes)}"
            raise misfit(place, number, expected=valid, found=line, remedy=remedy)
    if not names:
        raise misfit(place, 1, expected=expected, found=first, remedy=remedy)
    refuse_twice(place, names, numbers, remedy=remedy)
    return names, np.array(values, dtype=np.int16)
