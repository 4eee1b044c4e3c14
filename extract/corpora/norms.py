"""Tables of mean ratings, one row per image: the layout that OASIS, NAPS, IAPS, SMID and others share.

Each corpus states which columns it expects; every one can be mapped by hand: ``--option valence=COLUMN``, where COLUMN
is a title or, for tables without a header, ``#6`` for the sixth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import Option, Reading
from extract.corpora.partition import stratified
from extract.corpora.pictures import Pictures
from extract.corpora.texts import Table, find_one, misfit, table_of
from extract.corpora.vocabulary import ratings
from extract.errors import CorpusError
from extract.inputs.trees import Tree, open_tree
from features_store import Index, Labels, Split

REMEDY = "map the columns with --option image=COLUMN --option valence=COLUMN --option arousal=COLUMN (a title, or #6)"
_MISSING = ("", ".", "NA", "NaN", "nan")


@dataclass(frozen=True)
class Layout:
    """Where a corpus has its ratings.

    Parameters
    ----------
    name : str
        Of the corpus.
    files : tuple of str
        Patterns of the table's name, the likeliest first.
    image, valence, arousal : tuple of str
        Titles, the likeliest first; ``""`` is the title of an unnamed column, ``#6`` the sixth column.
    ends : (float, float)
        Of the scale.
    source : str
        Who rated, and how.
    folders : tuple of str
        Folders in which the images are looked for first.
    suffix : str
        What an image that is not there would end with.
    twice : bool
        An image may occur twice; its ratings are averaged.
    preamble : bool
        Lines may stand before the header.
    """

    name: str
    files: tuple[str, ...]
    image: tuple[str, ...]
    valence: tuple[str, ...]
    arousal: tuple[str, ...]
    ends: tuple[float, float]
    source: str
    delimiter: str = ","
    folders: tuple[str, ...] = ("images",)
    suffix: str = ".jpg"
    twice: bool = False
    preamble: bool = False

    def options(self) -> dict[str, Option]:
        """Return the options of the reader, with the defaults of this corpus."""
        return {
            "file": Option("", f"the table, relative to --data; default: {' or '.join(self.files)}"),
            "image": Option("", "column of the image"),
            "valence": Option("", "column of valence"),
            "arousal": Option("", "column of arousal"),
            "delimiter": Option({"\t": "\\t"}.get(self.delimiter, self.delimiter), "one character, or \\t"),
            "range": Option(f"{self.ends[0]:g}..{self.ends[1]:g}", "ends of the scale, LOW..HIGH"),
            "seed": Option(0, "seed of the split", minimum=0),
        }


@dataclass(frozen=True)
class Norms:
    """What a table of ratings gives: one row per image."""

    names: list[str]
    values: NDArray[np.float64]
    further: Mapping[str, Labels] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def ends_of(corpus: str, text: str) -> tuple[float, float]:
    """Read the ends of a scale, ``LOW..HIGH``.

    Raises CorpusError.
    """
    low, dots, high = text.partition("..")
    try:
        ends = (float(low), float(high))
    except ValueError:
        ends = (1.0, 0.0)
    if not dots or not ends[0] < ends[1] or not all(math.isfinite(end) for end in ends):
        msg = f"option 'range' of corpus {corpus!r} must be LOW..HIGH, as in 1..9; got {text!r}"
        raise CorpusError(msg)
    return ends


def table_and_columns(tree: Tree, layout: Layout, options: Mapping[str, Any]) -> tuple[Table, tuple[int, int, int]]:
    """Find the table and its columns of image, valence and arousal.

    Raises CorpusError.
    """
    files = [options["file"]] if options["file"] else list(layout.files)
    path = find_one(tree, files, layout=f"a table {' or '.join(layout.files)} and a folder of images")
    if path.lower().endswith((".xls", ".xlsx", ".ods", ".sav")):
        msg = f"{tree.place / path} is no text; save its sheet as CSV and name that with --option file=NAME"
        raise CorpusError(msg)
    wanted = [((options[key],) if options[key] else getattr(layout, key)) for key in ("image", "valence", "arousal")]
    delimiter = options["delimiter"].replace("\\t", "\t")
    by_title = [[name for name in names if not name.startswith("#")] for names in wanted]

    def is_header(cells: list[str]) -> bool:
        titles = [cell.strip().lower() for cell in cells]
        return all(any(name.strip().lower() in titles for name in names) for names in by_title)

    expected = "a header with the columns " + ", ".join(repr(names[0]) for names in wanted) + ", and rows below it"
    find_header = is_header if layout.preamble else None
    try:
        table = table_of(tree, path, delimiter=delimiter, is_header=find_header, expected=expected)
    except CorpusError as error:
        msg = f"{error}; {REMEDY}"
        raise CorpusError(msg) from error
    if not is_header(table.header) and any(_is_row(table.header, names) for names in wanted[1:]):
        # No line of titles: what was taken for one is the first row.
        table = Table(tree, path, [], [table.header, *table.rows], [1, *table.lines])
    at = tuple(_column(table, names) for names in wanted)
    return table, (at[0], at[1], at[2])


def _is_row(cells: list[str], columns: Sequence[str]) -> bool:
    """Tell whether a line has a number where a column that may be named by its position has its values."""
    at = next((int(name[1:]) for name in columns if name[:1] == "#" and name[1:].isdecimal()), 0)
    return 0 < at <= len(cells) and re.fullmatch(r"\s*-?\d+([.,]\d*)?\s*", cells[at - 1]) is not None


def _column(table: Table, names: Sequence[str]) -> int:
    numbered = [name for name in names if name.startswith("#")]
    if not table.header or len(numbered) == len(names):
        number = numbered[0][1:] if numbered else ""
        if number.isdecimal() and 1 <= int(number) <= max(map(len, table.rows)):
            return int(number) - 1
        found = f"{max(map(len, table.rows))} columns"
        raise table.misfit(None, expected=f"a column {' or '.join(names)}", found=found, remedy=REMEDY)
    return table.position(*(name for name in names if name not in numbered), remedy=REMEDY)


def norms_of(tree: Tree, layout: Layout, options: Mapping[str, Any]) -> Norms:
    """Read names and mean ratings from a table."""
    table, (image, valence, arousal) = table_and_columns(tree, layout, options)
    names = table.cells(image)
    for row, name in enumerate(names):
        if not name:
            table.refuse(row, "the name of an image", "an empty cell", REMEDY)
    columns = [table.numbers(at, remedy=REMEDY, empty=_MISSING) for at in (valence, arousal)]
    values = np.stack(columns, axis=1)
    check_range(table, values, ends_of(layout.name, options["range"]))
    return _averaged(table, names, values) if layout.twice else _once(table, names, values)


def check_range(table: Table, values: NDArray[np.float64], ends: tuple[float, float]) -> None:
    """Refuse a value outside the scale: the wrong column, or the wrong scale.

    Raises CorpusError.
    """
    outside = ((values < ends[0]) | (values > ends[1])).any(axis=1)
    if outside.any():
        row = int(outside.argmax())
        expected = f"ratings within {ends[0]:g}..{ends[1]:g}"
        table.refuse(
            row, expected, ", ".join(f"{v:g}" for v in values[row]), f"give --option range=LOW..HIGH, or {REMEDY}"
        )


def _once(table: Table, names: list[str], values: NDArray[np.float64]) -> Norms:
    table.refuse_twice(names, REMEDY)
    return Norms(names, values)


def _averaged(table: Table, names: list[str], values: NDArray[np.float64]) -> Norms:
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    means = np.array([values[group].mean(axis=0) for group in rows.values()])
    twice = sum(len(group) > 1 for group in rows.values())
    notes = (f"{twice} images occur more than once in {table.path}; their ratings are averaged",) if twice else ()
    return Norms(list(rows), means, notes=notes)


def reading_of(tree: Tree, layout: Layout, norms: Norms, options: Mapping[str, Any]) -> Reading:
    """Put norms and image files together."""
    ends = ends_of(layout.name, options["range"])
    labels = ratings(norms.values, ends, layout.source)
    ids = np.array(norms.names)
    index = Index(
        ids,
        {labels.task.name: labels, **norms.further},
        {"default": Split("default", stratified(norms.names, [0] * len(ids), seed=options["seed"]), source="made")},
        corpus={"name": layout.name, "options": dict(options)},
    )
    return Reading(index, Pictures(tree, layout.folders).source(norms.names, suffix=layout.suffix), norms.notes)


def read_table(data: Path, options: Mapping[str, Any], layout: Layout) -> Reading:
    """Read a corpus that is one table of ratings and a folder of images."""
    tree = open_tree(data)
    norms = norms_of(tree, layout, options)
    if misnamed := [name for name in norms.names if name.startswith("/") or ".." in name.split("/")]:
        raise misfit(tree, layout.files[0], 0, expected="names of images", found=misnamed[0], remedy=REMEDY)
    return reading_of(tree, layout, norms, options)
