"""Makers of the corpora of emotion categories."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from layouts import NAN, Expected, maker, picture, pictures, text


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
