"""Tables of mean ratings, one row per image: OASIS, NAPS, IAPS, SMID, DIRTI, IED, GAPED and EmoMadrid.

Each corpus is one row of `LAYOUTS`: the columns that it expects. They can be mapped by hand where a copy differs:
``--option valence=COLUMN``, where COLUMN is a title or, for tables without a header, ``#6`` for the sixth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.corpora.dataset import Dataset, labelled
from extract.corpora.labels import ratings, scale_ends, single
from extract.corpora.pictures import Pictures
from extract.corpora.splits import seeded_split
from extract.corpora.tables import Table, read_table
from extract.corpora.texts import find_one, misfit, no_file, read_lines
from extract.errors import CorpusError
from extract.inputs.trees import Tree, open_tree
from features_store import Labels

REMEDY = "map the columns with --option image=COLUMN --option valence=COLUMN --option arousal=COLUMN (a title, or #6)"
OASIS_CATEGORIES = ("animal", "object", "person", "scene")
GAPED_CATEGORIES = ("A", "H", "N", "P", "Sn", "Sp")
FOUNDATIONS = ("harm", "fairness", "ingroup", "authority", "purity")
_MISSING = ("", ".", "NA", "NaN", "nan")
_GAPED_ROW = "'<name>.bmp  valence  (sd)  arousal  (sd) ...'"

Found = tuple[list[Table], tuple[int, int, int], str]  # tables; columns of image, valence, arousal; a note


def find_table(tree: Tree, layout: Layout, options: Mapping[str, Any]) -> Found:
    """Find the one table of a corpus, and its columns of image, valence and arousal."""
    files = [options["file"]] if options["file"] else list(layout.files)
    path = find_one(tree, files, layout=f"a table {' or '.join(layout.files)} and a folder of images")
    if path.lower().endswith((".xls", ".xlsx", ".ods", ".sav")):
        raise CorpusError(
            f"{tree.place / path} is not text; save its sheet as CSV and name that with --option file=NAME"
        )
    wanted = [((options[key],) if options[key] else getattr(layout, key)) for key in ("image", "valence", "arousal")]

    def is_header(cells: list[str]) -> bool:
        titles = [cell.strip().lower() for cell in cells]
        named = [[name for name in names if not name.startswith("#")] for names in wanted]
        return all(any(name.strip().lower() in titles for name in names) for names in named)

    table = read_table(
        tree,
        path,
        delimiter=options["delimiter"].replace("\\t", "\t"),
        is_header=is_header if layout.preamble else None,
        expected="a header with the columns " + ", ".join(repr(names[0]) for names in wanted) + ", and rows below it",
        remedy=REMEDY,
    )
    if not is_header(table.header) and any(_is_row(table.header, names) for names in wanted[1:]):
        # There is no line of titles: what was taken for one is the first row.
        table = Table(table.place, [], [table.header, *table.rows], [1, *table.lines])
    image, valence, arousal = (_column(table, names) for names in wanted)
    return [table], (image, valence, arousal), ""


def _is_row(cells: list[str], columns: Sequence[str]) -> bool:
    """Tell whether a line has a number where a column that may be named by its position has its values."""
    at = next((int(name[1:]) for name in columns if name[:1] == "#" and name[1:].isdecimal()), 0)
    return 0 < at <= len(cells) and re.fullmatch(r"\s*-?\d+([.,]\d*)?\s*", cells[at - 1]) is not None


def _column(table: Table, names: Sequence[str]) -> int:
    numbered = [name for name in names if name.startswith("#")]
    if table.header and len(numbered) < len(names):
        return table.position(*(name for name in names if name not in numbered), remedy=REMEDY)
    number, width = numbered[0][1:] if numbered else "", max(map(len, table.rows))
    if number.isdecimal() and 1 <= int(number) <= width:
        return int(number) - 1
    raise table.misfit(None, expected=f"a column {' or '.join(names)}", found=f"{width} columns", remedy=REMEDY)


def find_gaped_tables(tree: Tree, _layout: Layout, _options: Mapping[str, Any]) -> Found:
    """Read one text file of norms per category; images are named ``CATEGORY/FILE``."""
    paths = {one: tree.find(f"{one}_with SD.txt") or tree.find(f"{one}.txt") for one in GAPED_CATEGORIES}
    found = [_gaped_table(tree, files[0], category) for category, files in paths.items() if files]
    if not found:
        layout = "GAPED/GAPED/{A,H,N,P,Sn,Sp}/*.bmp with 'A_with SD.txt' and so on next to the folders"
        raise no_file(tree, "'A_with SD.txt'", layout=layout)
    absent = ", ".join(category for category, files in paths.items() if not files)
    return found, (0, 1, 2), f"no norms were found for {absent}" if absent else ""


def _gaped_table(tree: Tree, path: str, category: str) -> Table:
    place, lines = tree.place / path, read_lines(tree, path)
    # 'name v (sd) a (sd) ...' has a deviation behind each mean; the plain files have means only.
    arousal, width = 3 if any("(" in line for line in lines) else 2, 0
    table = Table(place, ["image", "valence", "arousal"], [], [])
    for number, line in enumerate(lines, start=1):
        cells = re.split(r"[\s()]+", line.strip(" )"))
        is_row = re.fullmatch(r".+\.\w{3,4}", cells[0]) is not None
        if not line or not (is_row or width):
            continue  # empty lines, and the header
        width = width or max(len(cells), arousal + 1)
        if not is_row or len(cells) != width:
            raise misfit(place, number, expected=f"{_GAPED_ROW}, {width - 1} numbers", found=line)
        table.rows.append([f"{category}/{cells[0]}", cells[1], cells[arousal]])
        table.lines.append(number)
    if not table.rows:
        raise misfit(place, 1, expected=_GAPED_ROW, found=lines[0])
    return table


def find_parallel_files(tree: Tree, _layout: Layout, options: Mapping[str, Any]) -> Found:
    """Read the three files of EmoMadrid, whose lines belong together."""
    layout = "image_names.txt, MeanValence.txt, MeanArousal.txt, one line per image each, and the images"
    paths = [find_one(tree, [options[key]], layout=layout) for key in ("names", "valence", "arousal")]
    columns = [[line for line in read_lines(tree, path) if line] for path in paths]
    for path, column in zip(paths[1:], columns[1:], strict=True):
        if len(column) != len(columns[0]):
            expected = f"as many lines as {paths[0]} has images ({len(columns[0])})"
            raise misfit(tree.place / path, 0, expected=expected, found=f"{len(column)} lines")
    rows = [[name.strip("'\""), *values] for name, *values in zip(*columns, strict=True)]
    place = f"{tree.place / paths[0]} with {paths[1]} and {paths[2]}"
    return [Table(place, paths, rows, [*range(1, len(rows) + 1)])], (0, 1, 2), ""


# ---- labels that only some of them have -----------------------------------------------------------------------------


def oasis_category(tables: Sequence[Table], _ends: tuple[float, float]) -> list[Labels]:
    """Read what a picture of OASIS shows; one copy says Scene, another Scenery."""
    table = tables[0]
    if "Category" not in table.header:
        return []
    words = [cell.lower() for cell in table.cells(table.header.index("Category"))]
    words = ["scene" if word == "scenery" else word for word in words]
    for row, word in enumerate(words):
        if word not in OASIS_CATEGORIES:
            table.refuse(row, f"a category ({', '.join(OASIS_CATEGORIES)})", word, REMEDY)
    values = [OASIS_CATEGORIES.index(word) for word in words]
    return [single("category", OASIS_CATEGORIES, values, "what the picture shows")]


def smid_foundations(tables: Sequence[Table], ends: tuple[float, float]) -> list[Labels]:
    """Read the moral ratings of SMID, where their columns are there."""
    table, found = tables[0], []
    titles = [title.lower() for title in table.header]
    for name, outputs in (("moral", ("moral",)), ("foundations", FOUNDATIONS)):
        if all(f"{one}_mean" in titles for one in outputs):
            columns = [table.numbers(titles.index(f"{one}_mean"), remedy=REMEDY, empty=("", "NA")) for one in outputs]
            source = LAYOUTS["smid"].source
            found.append(ratings(np.stack(columns, axis=1), ends, source, name=name, outputs=outputs))
    return found


def gaped_category(tables: Sequence[Table], _ends: tuple[float, float]) -> list[Labels]:
    """Take the category of a picture of GAPED from its folder."""
    values = [GAPED_CATEGORIES.index(cell.partition("/")[0]) for table in tables for cell in table.cells(0)]
    return [single("category", GAPED_CATEGORIES, values, "the folder: what kind of picture")]


# ---- the table of layouts, and its one reader -----------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where a corpus has its ratings.

    `files` are patterns of the table's name, and `image`, `valence`, `arousal` titles, the likeliest first; ``""`` is
    the title of an unnamed column. `folders` hold the images, `suffix` is what a missing one would end with. With
    `average` an image may occur twice; with `preamble` lines may stand before the header.
    """

    source: str
    files: tuple[str, ...] = ()
    image: tuple[str, ...] = ("image", "file", "filename", "file name", "picture", "name", "id", "image_id")
    valence: tuple[str, ...] = ("valence", "valence_mean", "mean valence", "valence mean", "v")
    arousal: tuple[str, ...] = ("arousal", "arousal_mean", "mean arousal", "arousal mean", "a")
    folders: tuple[str, ...] = ("images",)
    suffix: str = ".jpg"
    average: bool = False
    preamble: bool = False
    tables: Callable[[Tree, Layout, Mapping[str, Any]], Found] = find_table
    further: Callable[[Sequence[Table], tuple[float, float]], list[Labels]] = lambda _tables, _ends: []


LAYOUTS = {
    "oasis": Layout(
        "mean of ratings on a scale from 1 to 7, online (MTurk)",
        ("OASIS.csv",),
        *(("Theme",), ("Valence_mean",), ("Arousal_mean",)),
        further=oasis_category,
    ),
    "gaped": Layout(
        "mean of ratings on a scale from 0 to 100",
        folders=(),
        suffix=".bmp",
        tables=find_gaped_tables,
        further=gaped_category,
    ),
    "naps": Layout(
        "mean of ratings on a scale from 1 to 9",
        ("NAPS_valence_arousal_2014.csv", "NAPS*.csv", "NAPS*.xls*"),
        *(("ID", "#1"), ("Valence", "#6"), ("Arousal", "#7")),
    ),
    "iaps": Layout(
        "mean of ratings on a scale from 1 to 9 (SAM), all subjects",
        ("AllSubjects_1-20.txt", "AllSubjects*.txt"),
        *(("IAPS",), ("valmn",), ("aromn",)),
        average=True,
        preamble=True,
    ),
    "smid": Layout(
        "mean of ratings, online",
        ("SMID_norms.csv",),
        *(("img_name", ""), ("valence_mean",), ("arousal_mean",)),
        folders=("img", "SMID_images_400px"),
        further=smid_foundations,
    ),
    "emomadrid": Layout("mean of ratings on a scale from -2 to 2", tables=find_parallel_files),
    "dirti": Layout("mean of ratings on a scale from 1 to 9", ("DIRTI*.csv", "*.csv")),
    "ied": Layout("mean of ratings on a scale from 1 to 9, online", ("IED*.csv", "*.csv")),
}


def read(name: str, data: Path, options: Mapping[str, Any]) -> Dataset:
    """Read a corpus of mean ratings and a folder of images."""
    tree, layout = open_tree(data), LAYOUTS[name]
    ends = scale_ends(options["range"], f"option 'range' of corpus {name!r}")
    tables, (image, valence, arousal), note = layout.tables(tree, layout, options)
    names: list[str] = []
    parts: list[NDArray[np.float64]] = []
    for table in tables:
        cells = table.cells(image)
        for row, cell in enumerate(cells):
            if not cell or cell.startswith("/") or ".." in cell.split("/"):
                table.refuse(row, "the name of an image", cell, REMEDY)
        if not layout.average:
            table.refuse_twice(cells, REMEDY)
        names += cells
        parts.append(_ratings(table, (valence, arousal), ends, empty=_MISSING if layout.files else ()))
    values = np.concatenate(parts)
    if layout.average:
        names, values, n_twice = _averaged(names, values)
        note = f"{n_twice} images occur more than once in the table; their ratings are averaged" if n_twice else ""
    return labelled(
        name,
        options,
        names,
        Pictures(tree, layout.folders).files(names, suffix=layout.suffix),
        labels=[ratings(values, ends, layout.source), *layout.further(tables, ends)],
        splits=[seeded_split("default", names, np.zeros(len(names), dtype=np.int8), seed=options["seed"])],
        notes=[note],
    )


def _ratings(
    table: Table, columns: tuple[int, int], ends: tuple[float, float], *, empty: Sequence[str]
) -> NDArray[np.float64]:
    """Read valence and arousal, (n_rows, 2); a value outside the scale means the wrong column or the wrong scale."""
    values = np.stack([table.numbers(column, remedy=REMEDY, empty=empty) for column in columns], axis=1)
    outside = ((values < ends[0]) | (values > ends[1])).any(axis=1)
    if outside.any():
        row = int(outside.argmax())
        found = ", ".join(f"{value:g}" for value in values[row])
        remedy = f"give --option range=LOW..HIGH, or {REMEDY}"
        table.refuse(row, f"ratings within {ends[0]:g}..{ends[1]:g}", found, remedy)
    return values


def _averaged(names: Sequence[str], values: NDArray[np.float64]) -> tuple[list[str], NDArray[np.float64], int]:
    """Average the ratings of equal names; return also how many occurred more than once."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    means = np.array([values[group].mean(axis=0) for group in rows.values()])
    return list(rows), means, sum(len(group) > 1 for group in rows.values())
