"""Makers of small corpora in the official layouts, each with the defects that the real one is known for."""

from __future__ import annotations

import json
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
    splits = {
        "folds-five": [0, 1, 2, -1, -1],
        "first-fifth-three": [1, 0, 0, 0, 0],
        "first-fifth-five": [0, 0, 0, -1, -1],
    }
    return Expected(root, names, labels, splits, [0, 0, -1, -1, -1])


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


@maker("emotion6")
def emotion6(root: Path) -> Expected:
    """Brackets in the header; a majority other than the folder; a tie; neutral ahead."""
    columns = "image_filename,valence,arousal,prob. anger,prob. disgust,prob. fear,prob. joy,prob. sadness"
    head = "\t".join(f"[{one}]" for one in [*columns.split(","), "prob. surprise", "prob. neutral"])
    shares = [
        [0.1, 0.7, 0, 0.1, 0.1, 0, 0],
        [0.1, 0.2, 0, 0, 0.1, 0, 0.6],
        [0, 0, 0.5, 0, 0.5, 0, 0],
    ]
    names, scores = ["disgust/1.jpg", "joy/1.jpg", "fear/2.jpg"], [[2.5, 3.8], [6, 4], [3, 5]]
    rows = ["\t".join(map(str, [n, *s, *p])) for n, s, p in zip(names, scores, shares, strict=True)]
    text(root / "Emotion6" / "ground_truth.txt", "\n".join([head, *rows]) + "\n")
    pictures(root / "Emotion6" / "images", names)
    labels = {
        "emotion": [1, 3, 2],
        "polarity": [0, 1, 0],
        "majority": [1, 6, -1],
        "valence_arousal": scores,
        "distribution": shares,
    }
    return Expected(root, names, labels)


@maker("emotionroi")
def emotionroi(root: Path) -> Expected:
    """Stimuli maps of the same names, and the official lists."""
    base = root / "EmotionROI"
    names = ["anger/1.jpg", "anger/232.jpg", "surprise/1.jpg"]
    pictures(base / "images", names)
    pictures(base / "ground_truth", names)
    text(base / "training_testing_split/training.txt", "surprise/1.jpg\nanger/1.jpg\n")
    text(base / "training_testing_split/testing.txt", "anger/232.jpg\n")
    return Expected(root, names, {"emotion": [0, 0, 5], "polarity": [0, 0, 1]}, {"default": [0, 2, 0]})


@maker("fi")
def fi(root: Path) -> Expected:
    """Gaps in the numbers; five placeholders in two classes; a second copy; one public split, coded 0 and 2."""
    kept = ["amusement/amusement_0001.jpg", "amusement/amusement_0007.jpg", "sadness/sadness_0002.jpg"]
    base = root / "emotion_dataset"
    pictures(base, kept)
    for number in range(5):
        emotion = ("awe", "fear")[number % 2]
        picture(base / f"{emotion}/{emotion}_{number:04}.jpg", 99)
    (base / "sadness/sadness_0009.jpg").write_bytes((base / kept[2]).read_bytes())
    for part, rows in (("train", f"{kept[0]},2\n"), ("val", f"{kept[1]},2\n"), ("test", f"{kept[2]},0\n")):
        text(root / f"split_1/FI_{part}.csv", f"path,class\n{rows}")
    return Expected(root, kept, {"emotion": [0, 0, 7], "polarity": [1, 1, 0]}, {"serra-1": [0, 1, 2]})


@maker("artphoto")
def artphoto(root: Path) -> Expected:
    """``sad`` for sadness, and a file that is no image of the corpus."""
    names = ["awe_0001.jpg", "content_12.jpg", "sad_0534.jpg"]
    pictures(root / "testImages_artphoto", [*names, "thumbs.jpg"])
    return Expected(root, names, {"emotion": [2, 3, 7], "polarity": [1, 1, 0]})


@maker("abstract")
def abstract(root: Path) -> Expected:
    """Names in single quotes, one with a comma; a tie."""
    head = "'','Amusement','Anger','Awe','Content','Disgust','Excitement','Fear','Sad'"
    rows = ["'abstract_0001.jpg',0,3,0,1,0,0,0,0", "'a,b.jpg',2,0,0,2,0,0,0,0", "'c.jpg',0,0,0,0,0,0,0,1"]
    text(root / "ABSTRACT_groundTruth.csv", "\n".join([head, *rows]) + "\n")
    names = ["abstract_0001.jpg", "a,b.jpg", "c.jpg"]
    pictures(root / "testImages_abstract", names)
    spread = [[0, 0.75, 0, 0.25, 0, 0, 0, 0], [0.5, 0, 0, 0.5, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1]]
    return Expected(root, names, {"emotion": [1, -1, 7], "polarity": [0, -1, 0], "distribution": spread})


@maker("emoset")
def emoset(root: Path) -> Expected:
    """Rows of three elements and of four; the inverted code of two classes stands in the info file."""
    names = ["image/amusement/amusement_00001.jpg", "image/anger/anger_00001.jpg", "image/awe/awe_00001.jpg"]
    pictures(root, names)
    info = {"label2idx": {"amusement": 0, "awe": 1, "anger": 4}, "sentiment": {"positive": 0, "negative": 1}}
    text(root / "info.json", json.dumps(info))
    for part, name, more in (("train", names[0], []), ("val", names[1], [4]), ("test", names[2], ["x"])):
        emotion = name.split("/")[1]
        text(root / f"{part}.json", json.dumps([[emotion, name, f"annotation/{emotion}/1.json", *more]]))
    return Expected(root, names, {"emotion": [0, 4, 1], "polarity": [1, 0, 1]}, {"default": [0, 1, 2]})


def _ldl(root: Path, *, with_parts: bool) -> Expected:
    head = "images-name Amusement Awe Contentment Excitement Anger Disgust Fear Sadness "
    text(
        root / "ground_truth.txt", f"{head}\n1.jpg 6 2 0 0 0 0 0 0 \n2.jpg 0 0 0 0 0 0 1 10 \n3.jpg 0 0 0 0 0 0 0 0 \n"
    )
    names = ["1.jpg", "2.jpg", "3.jpg"]
    pictures(root / "images", names)
    labels = {
        "emotion": [0, 7, -1],
        "polarity": [1, 0, -1],
        "distribution": [[0.75, 0.25, *[0] * 6], [*[0] * 6, 1 / 11, 10 / 11], [NAN] * 8],
    }
    if not with_parts:
        return Expected(root, names, labels)
    from scipy.io import savemat

    cells = np.array([[name] for name in ("3.jpg", "1.jpg", "2.jpg")], dtype=object)
    content = {"imgname": cells, "train_ind": np.array([[1, 3]]), "test_ind": np.array([[2]])}
    savemat(root / "twitter_ldl_config.mat", content)
    return Expected(root, names, labels, {"default": [2, 0, 0]})


@maker("flickr-ldl")
def flickr_ldl(root: Path) -> Expected:
    """An empty field at the end of each line; an image without votes."""
    return _ldl(root, with_parts=False)


@maker("twitter-ldl")
def twitter_ldl(root: Path) -> Expected:
    """The official parts in MATLAB's format, counted from 1, in an order of their own."""
    return _ldl(root, with_parts=True)


@maker("oasis")
def oasis(root: Path) -> Expected:
    """Carriage returns alone, an unnamed column, blanks behind a theme, Scene beside Scenery."""
    rows = [
        ",Theme,Category,Source,Valence_mean,Valence_SD,Valence_N,Arousal_mean,Arousal_SD,Arousal_N",
        "I1,Acorns 1,Object,Pixabay,4.68627451,1.2,102,2.346938776,1.6,98",
        'I2,"Crosswalk 1 ",Scene,Pixabay,4,1.2,102,3.5,1.6,98',
        "I3,War 2 ,Scenery,Pixabay,1.5,1.2,102,5.25,1.6,98",
    ]
    text(root / "OASIS.csv", "\n".join(rows) + "\n", newline="\r")
    pictures(root / "images", ["Acorns 1.jpg", "Crosswalk 1.jpg", "War 2.jpg"])
    values = [[4.68627451, 2.346938776], [4, 3.5], [1.5, 5.25]]
    return Expected(root, ["Acorns 1", "Crosswalk 1", "War 2"], {"valence_arousal": values, "category": [1, 3, 3]})


@maker("gaped")
def gaped(root: Path) -> Expected:
    """Deviations in parentheses, empty lines, and the folder within a folder of the same name."""
    base = root / "GAPED" / "GAPED"
    head = "Picture  Valence (SD)  Arousal (SD)  Internal (SD)\n"
    text(base / "A_with SD.txt", f"{head}A001.bmp  8.5  (9.1)  70.25  (20)  3.1 (2)\n\nA002.bmp 12 (1) 60 (2) 1 (1)\n")
    text(base / "Sp_with SD.txt", f"{head}Sp001.bmp\t30.5\t(3)\t55\t(4)\t1\t(1)\n", newline="\r\n")
    pictures(base, ["A/A001.bmp", "A/A002.bmp", "Sp/Sp001.bmp"])
    values = [[8.5, 70.25], [12, 60], [30.5, 55]]
    ids = ["A/A001.bmp", "A/A002.bmp", "Sp/Sp001.bmp"]
    return Expected(root, ids, {"valence_arousal": values, "category": [0, 0, 5]})


@maker("naps")
def naps(root: Path) -> Expected:
    """Semicolons, no header, decimal commas."""
    text(
        root / "NAPS_valence_arousal_2014.csv", "Animals_001_h;Animals;1;h;a cat;6,5;4,25\nFaces_001_v;Faces;1;v;;3;7\n"
    )
    pictures(root, ["Animals_001_h.jpg", "Faces_001_v.jpg"])
    return Expected(root, ["Animals_001_h", "Faces_001_v"], {"valence_arousal": [[6.5, 4.25], [3, 7]]})


@maker("iaps")
def iaps(root: Path) -> Expected:
    """Lines before the header, a slide that occurs twice, a dot for what is missing, upper-case suffixes."""
    rows = [
        "IAPS All Subjects",
        "",
        "desc\tIAPS\tvalmn\tvalsd\taromn\tarosd\tdom1mn\tdom1sd\tset",
        "Snake\t1050\t3.5\t2\t6.75\t1.7\t.\t.\t1",
        "Boy\t2345.1\t2.25\t1\t5.5\t2\t3\t1\t7",
        "Snake\t1050\t3.0\t2\t7.25\t1.7\t.\t.\t9",
    ]
    text(root / "AllSubjects_1-20.txt", "\n".join(rows), newline="\r\n")
    pictures(root / "IAPS 1-20 Images", ["1050.JPG", "2345.1.jpg"])
    return Expected(root, ["1050", "2345.1"], {"valence_arousal": [[3.25, 7.0], [2.25, 5.5]]})


@maker("smid")
def smid(root: Path) -> Expected:
    """The column of the images has no title; names have no suffix, and files have several."""
    head = "valence_mean,arousal_mean,moral_mean,harm_mean,fairness_mean,ingroup_mean,authority_mean,purity_mean"
    text(root / "SMID_norms.csv", f'"",{head}\nb1_p1,4.5,2,4,1,2,3,4,5\nb1_p2,1.5,3.5,1,5,4,3,2,\n')
    picture(root / "SMID_images_400px/img/b1_p1.jpeg", 1)
    picture(root / "SMID_images_400px/img/b1_p2.png", 2)
    labels = {
        "valence_arousal": [[4.5, 2], [1.5, 3.5]],
        "moral": [[4], [1]],
        "foundations": [[1, 2, 3, 4, 5], [5, 4, 3, 2, NAN]],
    }
    return Expected(root, ["b1_p1", "b1_p2"], labels)


@maker("emomadrid")
def emomadrid(root: Path) -> Expected:
    """Three files whose lines belong together."""
    text(root / "image_names.txt", "EM0001.jpg\nEM0002.jpg\n")
    text(root / "MeanValence.txt", "-1.5\n0.25\n")
    text(root / "MeanArousal.txt", "1.75\n-2\n\n")
    pictures(root / "images", ["EM0001.jpg", "EM0002.jpg"])
    return Expected(root, ["EM0001.jpg", "EM0002.jpg"], {"valence_arousal": [[-1.5, 1.75], [0.25, -2]]})


@maker("dirti")
def dirti(root: Path) -> Expected:
    """Columns mapped by hand, semicolons."""
    text(root / "norms.csv", "Nummer;Valenz;Erregung\n1001;2,5;6\n1002;3;5,5\n")
    pictures(root / "pics", ["1001.jpg", "1002.jpg"])
    options = {"image": "Nummer", "valence": "Valenz", "arousal": "Erregung", "delimiter": ";"}
    return Expected(root, ["1001", "1002"], {"valence_arousal": [[2.5, 6], [3, 5.5]]}, options=options)


@maker("ied")
def ied(root: Path) -> Expected:
    """Columns by their usual titles."""
    text(root / "table.csv", "filename,valence,arousal\nx/1.jpg,5,4\nx/2.jpg,9,1\n")
    pictures(root, ["x/1.jpg", "x/2.jpg"])
    return Expected(root, ["x/1.jpg", "x/2.jpg"], {"valence_arousal": [[5, 4], [9, 1]]})
