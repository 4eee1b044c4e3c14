"""Makers of small corpora in the official layouts, each with the defects that the real one is known for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAN = None  # stands for "no label" in expected ratings


@dataclass
class Expected:
    """What a reader must find, written by hand."""

    data: Path
    ids: list[str]
    labels: dict[str, list[Any]]
    splits: dict[str, list[int]] = field(default_factory=dict)
    groups: list[int] | None = None
    options: dict[str, str] = field(default_factory=dict)


MAKERS: dict[str, Callable[[Path], Expected]] = {}


def maker(name: str) -> Callable[[Callable[[Path], Expected]], Callable[[Path], Expected]]:
    """Enter a function into the table."""

    def enter(function: Callable[[Path], Expected]) -> Callable[[Path], Expected]:
        MAKERS[name] = function
        return function

    return enter


def picture(path: Path, seed: int = 0, *, side: int = 24, **settings: Any) -> Path:
    """Write a small photograph-like image: a few soft blobs of colour, other ones for each seed."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0 : side + 8] / side
    pixels = np.zeros((side, side + 8, 3))
    for _ in range(6):
        y, x, width = *random.uniform(0, 1.2, 2).tolist(), random.uniform(0.1, 0.5)
        pixels += np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / width**2)[..., None] * random.uniform(0, 255, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, **settings)
    return path


def pictures(root: Path, names: Iterable[str]) -> None:
    """Write one image per name, no two the same."""
    for seed, name in enumerate(names):
        picture(root / name, seed)


def text(path: Path, content: str, encoding: str = "utf-8", newline: str = "\n") -> Path:
    """Write a text file with the given line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.replace("\n", newline).encode(encoding))
    return path


@maker("b-t4sa")
def b_t4sa(root: Path) -> Expected:
    """Three lists; four images of one tweet; the corrupt image; CRLF in one list, a byte-order mark in another."""
    base = root / "b-t4sa_imgs"
    train = [
        "data/76884/768840000000000001-1.jpg",
        "data/76884/768840000000000001-2.jpg",
        "data/79123/791230000000000002-1.jpg",
        "data/77000/770000000000000003-1.jpg",
        "data/77000/770000000000000003-4.jpg",
        "data/79500/795000000000000004-1.jpg",
    ]
    val = ["data/78000/780000000000000005-1.jpg"]
    test = ["data/78439/784393626990194689-4.jpg", "data/78439/784393626990194688-1.jpg"]
    pictures(base, train + val + test)
    (base / test[0]).write_bytes((base / test[0]).read_bytes()[:200])
    text(base / "b-t4sa_train.txt", "".join(f"{n} {c}\n" for n, c in zip(train, "220110", strict=True)), newline="\r\n")
    text(base / "b-t4sa_val.txt", f"\ufeff{val[0]} 1\n")
    text(base / "b-t4sa_test.txt", f"{test[0]} 2\n{test[1]} 0")
    return Expected(
        root,
        train + val + test,
        {"polarity": [2, 2, 0, 1, 1, 0, 1, 2, 0]},
        {"default": [0, 0, 0, 0, 0, 0, 1, 2, 2]},
        [0, 0, -1, 1, 1, -1, -1, -1, -1],
    )


@maker("b-t4sa-tfm")
def b_t4sa_tfm(root: Path) -> Expected:
    """The subset takes one of each class from parts that have exactly that many."""
    names = [f"data/76000/76000000000000000{n}-1.jpg" for n in range(9)]
    pictures(root, names)
    for part, at in (("train", 0), ("val", 3), ("test", 6)):
        text(root / f"b-t4sa_{part}.txt", "".join(f"{names[at + c]} {c}\n" for c in range(3)))
    options = {"train": "3", "validation": "3", "test": "3"}
    splits = {"default": [0, 0, 0, 1, 1, 1, 2, 2, 2]}
    return Expected(root, names, {"polarity": [0, 1, 2] * 3}, splits, [-1] * 9, options)


@maker("t4sa")
def t4sa(root: Path) -> Expected:
    """A tweet without images, an image without tweet, a tie of probabilities."""
    names = ["imgs/a/768840000000000001-1.jpg", "imgs/a/768840000000000001-2.jpg", "imgs/b/768840000000000009-1.jpg"]
    pictures(root, [*names, "imgs/b/999999999999999999-1.jpg"])
    table = (
        "TWID\tNEG\tNEU\tPOS\n768840000000000001\t0.1\t0.2\t0.7\n"
        "768840000000000005\t1\t0\t0\n768840000000000009\t0.4\t0.4\t0.2\n"
    )
    text(root / "t4sa_text_sentiment.tsv", table)
    values = [[0.1, 0.2, 0.7]] * 2 + [[0.4, 0.4, 0.2]]
    return Expected(root, names, {"polarity": [2, 2, -1], "probabilities": values}, {}, [0, 0, -1])


@maker("t4sa2")
def t4sa2(root: Path) -> Expected:
    """Commas, photo numbers from 0, a header in one list, images in a folder of their own."""
    names = [
        "15232/1523241214556147712-0.jpg",
        "15232/1523241214556147712-1.jpg",
        "15233/1523300000000000000-0.jpg",
        "15234/1523400000000000000-0.jpg",
    ]
    pictures(root / "data", names)
    text(root / "bal_T4SA2.0_train.csv", f"path,class\n{names[0]},1\n{names[1]},1\n")
    text(root / "bal_T4SA2.0_val.csv", f"{names[2]},0\n")
    text(root / "bal_T4SA2.0_test.csv", f"{names[3]},2\n")
    return Expected(root, names, {"polarity": [1, 1, 0, 2]}, {"default": [0, 0, 1, 2]}, [0, 0, -1, -1])


@maker("twitter1")
def twitter1(root: Path) -> Expected:
    """Names with ``-``, ``_`` and ``.png``; one media id under two tweets, parted by the public folds."""
    names = ["11_21_AbC-d_E.jpg", "12_22_AbC-d_E.jpg", "13_23_other.png", "14_24_X-1.jpg", "15_25_Y_2.jpg"]
    pictures(root / "Agg_AMT_Candidates", names)
    lists = {"three": [1, 1, 0, 0, 1], "four": [1, 1, 0, 0], "five": [1, 1, 0]}
    for subset, codes in lists.items():
        lines = [f"{name} {code}\n" for name, code in zip(names, codes, strict=False)]
        text(root / f"twitter_{subset}_agrees.txt", "".join(lines))
    for fold in range(1, 4):
        text(root / f"ground_truth/five_agrees/test{fold}/test.txt", f"{names[fold - 1]} {lists['five'][fold - 1]}\n")
        text(root / f"ground_truth/five_agrees/test{fold}/train.txt", "")
    labels = {"three": [1, 1, 0, 0, 1], "four": [1, 1, 0, 0, -1], "five": [1, 1, 0, -1, -1]}
    return Expected(root, names, labels, {"folds-five": [0, 1, 2, -1, -1]}, [0, 0, -1, -1, -1])


@maker("vso-603")
def vso(root: Path) -> Expected:
    """A list of the user's own, with words for labels and a header."""
    names = ["a b.jpg", "c,d.jpg", "e.jpg"]
    pictures(root / "images", names)
    text(root / "mine.txt", "image\tlabel\na b.jpg\tpositive\nc,d.jpg\tnegative\ne.jpg\tpositive\n")
    labels = {"polarity": [2, 0, 2], "binary": [1, 0, 1]}
    return Expected(root, names, labels, {"default": [2, 2, 2]}, [-1, -1, -1])


@maker("mediaeval21")
def mediaeval21(root: Path) -> Expected:
    """The header's own spelling; an equal pair with different labels; rows of zeros; a test file keyed by name."""
    names = ["171798f0-dev", "c5a74b3b-dev", "aaaa-dev", "bbbb-test"]
    pictures(root / "images", [f"{name}.jpg" for name in names])
    (root / "images/c5a74b3b-dev.jpg").write_bytes((root / "images/171798f0-dev.jpg").read_bytes())
    second = "T2.1: Joy,T2.2: Sadness,T2.3: Fear,T2.4: Disgust,T2.5: Anger,T2.6: Surprise,T2.7: Neutral"
    third = (
        "T3.1: Anger,T3.2: Anxiety,T3.3: Craving,T3.4: Emphatic pain,T3.5: Fear,T3.6: Horror,T3.7: Joy,"
        "T3.8: Relief,T3.9: Sadness,T3.10:surprise"
    )
    dev = [
        f"{names[0]},neutral,1,0,0,0,0,0,0,0,0,0,0,0,0,1,1,0,0",
        f"{names[1]},negative,0,1,1,0,0,0,0,1,0,0,0,0,0,0,0,0,1",
        f"{names[2]},positive,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0",
    ]
    text(root / "devset.csv", f"id,T1,{second},{third}\n" + "\n".join(dev))
    text(root / "testset.csv", f"n,filename,T1,{second},{third}\n0,{names[3]}.jpg,negative,{','.join('0' * 16)},1\n")
    joy, sad = [1, 0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0]
    third_of = [
        [0, 0, 0, 0, 0, 0, 1, 1, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        [0] * 10,
        [0] * 9 + [1],
    ]
    labels = {"subtask1": [1, 0, 2, 0], "subtask2": [joy, sad, [0] * 7, [0] * 7], "subtask3": third_of}
    return Expected(root, names, labels, {}, [0, 0, -1, -1])


@maker("crowdflower")
def crowdflower(root: Path) -> Expected:
    """A quoted cell over several lines, latin-1, an image listed twice by url, a dead url."""
    q = "which_of_these_sentiment_scores_does_the_above_image_fit_into_best"
    head = f"_unit_id,_golden,_unit_state,_trusted_judgments,_last_judgment_at,{q},{q}:confidence,imageurl,{q}_gold,x"
    rows = [
        '1,TRUE,golden,5,,Positive,0.9,http://x/a.jpg,"Highly Positive\nPositive","caf\u00e9, really"',
        "2,FALSE,finalized,5,,Highly negative,0.7,http://x/b.jpg,,",
        "3,FALSE,finalized,5,,Neutral,0.6,http://x/a.jpg,,",
    ]
    text(root / "image-Sentiment-polarity-DFE.csv", "\n".join([head, *rows]), "latin-1")
    pictures(root, ["1.jpg", "3.jpg"])
    labels = {"sentiment": [3, 0, 2], "polarity": [2, 0, 1]}
    return Expected(root, ["1", "2", "3"], labels, {}, [0, -1, 0])
