"""GAPED and EmoMadrid: norms in text files of a form of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from extract.corpora.dataset import Corpus, Option, Reading
from extract.corpora.norms import Layout, Norms, check_range, ends_of, reading_of
from extract.corpora.texts import Table, find_one, lines_of, misfit, no_file
from extract.corpora.vocabulary import single
from extract.inputs.trees import Tree, open_tree

CATEGORIES = ("A", "H", "N", "P", "Sn", "Sp")
_NONE = ("",)
_GAPED = Layout(
    "gaped",
    (),
    _NONE,
    _NONE,
    _NONE,
    (0.0, 100.0),
    "mean of ratings on a scale from 0 to 100",
    folders=(),
    suffix=".bmp",
)
_MADRID = Layout("emomadrid", (), _NONE, _NONE, _NONE, (-2.0, 2.0), "mean of ratings on a scale from -2 to 2")
_LAYOUT_GAPED = "GAPED/GAPED/{A,H,N,P,Sn,Sp}/*.bmp with 'A_with SD.txt' and so on next to the folders"
_LAYOUT_MADRID = "image_names.txt, MeanValence.txt, MeanArousal.txt, one line per image each, and the images"
_ROW = "'<name>.bmp  valence  (sd)  arousal  (sd) ...'"


def read_gaped(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read one text file of norms per category; ids are ``CATEGORY/FILE``."""
    tree = open_tree(data)
    names: list[str] = []
    values: list[tuple[float, float]] = []
    categories: list[int] = []
    for number, category in enumerate(CATEGORIES):
        found = tree.find(f"{category}_with SD.txt") or tree.find(f"{category}.txt")
        for path in found[:1]:
            rows = _norms_of_category(tree, path, ends_of("gaped", options["range"]))
            names += [f"{category}/{name}" for name, _ in rows]
            values += [pair for _, pair in rows]
            categories += [number] * len(rows)
    if not names:
        raise no_file(tree, "'A_with SD.txt'", layout=_LAYOUT_GAPED)
    labels = single("category", CATEGORIES, categories, "the folder: what kind of picture")
    missing = [one for number, one in enumerate(CATEGORIES) if number not in categories]
    notes = (f"no norms were found for {', '.join(missing)}",) if missing else ()
    return reading_of(tree, _GAPED, Norms(names, np.array(values), {"category": labels}, notes), options)


def _norms_of_category(tree: Tree, path: str, ends: tuple[float, float]) -> list[tuple[str, tuple[float, float]]]:
    rows: list[list[str]] = []
    numbers: list[int] = []
    lines = lines_of(tree, path)
    for number, line in enumerate(lines, start=1):
        cells = re.split(r"[\s()]+", line.strip(" )"))
        if not line or not re.fullmatch(r".+\.\w{3,4}", cells[0]):
            if line and number > 1 and rows:
                raise misfit(tree, path, number, expected=_ROW, found=line)
            continue  # the header, and empty lines
        if rows and len(cells) != len(rows[0]):
            raise misfit(tree, path, number, expected=f"{_ROW}, {len(rows[0]) - 1} numbers", found=line)
        rows.append(cells)
        numbers.append(number)
    # 'name v (sd) a (sd) ...' has four numbers or more; the plain files have means only.
    arousal = 3 if any("(" in line for line in lines) else 2
    table = Table(tree, path, ["image", *(f"#{at}" for at in range(2, 9))], rows, numbers)
    if not rows:
        raise misfit(tree, path, 1, expected=_ROW, found=lines[0])
    pairs = np.stack([table.numbers(1, remedy=_ROW), table.numbers(arousal, remedy=_ROW)], axis=1)
    if np.isnan(pairs).any():
        row = int(np.isnan(pairs).any(axis=1).argmax())
        table.refuse(row, _ROW, " ".join(rows[row]))
    check_range(table, pairs, ends)
    return [(row[0], (float(pair[0]), float(pair[1]))) for row, pair in zip(rows, pairs, strict=True)]


def read_madrid(data: Path, options: Mapping[str, Any]) -> Reading:
    """Read three files whose lines belong together."""
    tree = open_tree(data)
    paths = [find_one(tree, [options[key]], layout=_LAYOUT_MADRID) for key in ("names", "valence", "arousal")]
    columns = [[line for line in lines_of(tree, path) if line] for path in paths]
    for path, column in zip(paths[1:], columns[1:], strict=True):
        if len(column) != len(columns[0]):
            expected = f"as many lines as {paths[0]} has images ({len(columns[0])})"
            raise misfit(tree, path, 0, expected=expected, found=f"{len(column)} lines")
    values = np.full((len(columns[0]), 2), np.nan)
    for at in (1, 2):
        table = Table(tree, paths[at], [], [[cell] for cell in columns[at]], list(range(1, len(columns[at]) + 1)))
        values[:, at - 1] = table.numbers(0, remedy="name the files with --option valence=FILE --option arousal=FILE")
        check_range(table, values[:, at - 1 : at], ends_of("emomadrid", options["range"]))
    names = [name.strip("'\"") for name in columns[0]]
    return reading_of(tree, _MADRID, Norms(names, values), options)


_SEED = Option(0, "seed of the split", minimum=0)
GAPED = Corpus(
    name="gaped",
    title="GAPED: the Geneva Affective Picture Database, 730 photographs",
    obtain="unige.ch/cisa; give the folder it unpacks to, or its zip",
    licence="its page states the terms",
    citation="Dan-Glauser, Scherer, The Geneva affective picture database (GAPED), Behavior Research Methods 2011",
    reader=read_gaped,
    tasks={
        "valence_arousal": "regression: means, 0 to 100",
        "category": "single: animal mistreatment A, human rights H, neutral N, positive P, snakes Sn, spiders Sp",
    },
    splits={"default": "70/10/20, seeded; there is no official one"},
    defects=("standard deviations stand in parentheses between the means, and some lines are empty",),
    options={"range": Option("0..100", "ends of the scale, LOW..HIGH"), "seed": _SEED},
    published={"images": 730, "category/P": 121, "category/N": 89},
)
EMOMADRID = Corpus(
    name="emomadrid",
    title="EmoMadrid: photographs with valence and arousal",
    obtain="from its authors at the Universidad Autónoma de Madrid; give the folder of the three text files and images",
    licence="its page states the terms",
    citation="Carretié, Tapia, López-Martín, Albert, EmoMadrid: An emotional pictures database for affect research, "
    "Motivation and Emotion 2019",
    reader=read_madrid,
    tasks={"valence_arousal": "regression: means, -2 to 2"},
    splits={"default": "70/10/20, seeded; there is no official one"},
    defects=("names and ratings stand in three files that only the order of their lines connects",),
    options={
        "names": Option("image_names.txt", "file of the image names"),
        "valence": Option("MeanValence.txt", "file of the mean valences"),
        "arousal": Option("MeanArousal.txt", "file of the mean arousals"),
        "range": Option("-2..2", "ends of the scale, LOW..HIGH"),
        "seed": _SEED,
    },
)
