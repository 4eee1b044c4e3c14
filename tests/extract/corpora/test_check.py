"""``extract check`` finds every planted defect, and the planted leak of time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layouts import MAKERS, picture, text
from PIL import Image

from extract.check.duplicates import find_clusters
from extract.check.report import check, lines_of
from extract.corpora import find_corpus
from features_store import Index, Labels, Split, Status, Task
from features_store.leakage import probe, traces_of_ids, tree_scores

CHECKED = ("mediaeval21", "b-t4sa", "twitter1", "fi", "crowdflower")


@pytest.mark.parametrize("name", CHECKED)
def test_planted_defects(name: str, tmp_path: Path) -> None:
    """What the layouts were made with is found, in the record and in words."""
    made = MAKERS[name](tmp_path)
    corpus = find_corpus(name)
    options = {"equal": "keep"} if name == "fi" else {}
    reading = corpus.read(made.data, options)
    record = check(corpus, reading, progress=False)
    words = "\n".join(lines_of(record))
    json.dumps(record)
    if name == "mediaeval21":
        pair = record["duplicates"][0]
        assert pair["ids"] == ["171798f0-dev", "c5a74b3b-dev"]
        assert pair["exact"]
        assert set(pair["conflicting_tasks"]) == {"subtask1", "subtask2", "subtask3"}
        assert record["all_zero"] == {"subtask2": 2, "subtask3": 1}
        assert "different labels in task 'subtask1': 171798f0-dev = c5a74b3b-dev" in words
        assert record["differs"]["images"] == [4, 3631]
    if name == "b-t4sa":
        assert record["failed"] == {"truncated": ["data/78439/784393626990194689-4.jpg"]}
        assert record["counts"]["default/train"] == 6
        assert "default/train: 6 (published: 368586)" in words
        assert record["counts"]["polarity/positive"] == 3
    if name == "twitter1":
        assert record["groups_parted"]["folds-five"] == 1
        assert record["groups_parted"]["default"] == 0
        assert "groups split across parts by split 'folds-five': 1" in words
    if name == "fi":
        sizes = sorted(len(one["ids"]) for one in record["duplicates"] if one["exact"])
        assert sizes == [2, 5]
        placeholders = next(one for one in record["duplicates"] if len(one["ids"]) == 5)
        assert "emotion" in placeholders["conflicting_tasks"]
    if name == "crowdflower":
        assert record["failed"] == {"missing file": ["2"]} or record["failed"] == {Status.MISSING.reason: ["2"]}


def near_copy(path: Path, copy: Path) -> None:
    """Write the image again: other quality, a little smaller."""
    with Image.open(path) as image:
        image.resize((image.width - 6, image.height - 5)).save(copy, quality=60)


def make_folder(root: Path) -> Path:
    """Twelve photographs; one near-copy across parts and classes, one exact copy within a part, two plain images."""
    for seed in range(12):
        part = "train" if seed < 8 else "test"
        picture(root / part / ("cats" if seed % 2 else "dogs") / f"{seed:02}.jpg", seed, side=120, quality=95)
    near_copy(root / "train/dogs/00.jpg", root / "test/cats/99.jpg")
    (root / "train/dogs/98.jpg").write_bytes((root / "train/dogs/02.jpg").read_bytes())
    for name, colour in (("96", "red"), ("97", "blue")):
        Image.new("RGB", (50, 50), colour).save(root / f"train/cats/{name}.jpg")
    (root / "test/dogs/95.jpg").write_bytes(b"no image")
    return root


def test_duplicates_and_page(tmp_path: Path, command_line: Callable[..., tuple[int, str, str]]) -> None:
    """Near-duplicates across parts and labels are told from exact ones; plain images are no duplicates."""
    hostile = 'x"><script>alert(1)<'
    root = make_folder(tmp_path / "corpus")
    os.rename(root / "test/cats/99.jpg", root / "test/cats" / f"{hostile}.jpg")
    page = tmp_path / "page.html"
    code, out, err = command_line("check", "folder", "--data", root, "--json", "--page", page)
    assert code in (0, 3), err
    record = json.loads(out)
    exact, near = record["duplicates"]
    assert exact == {
        "ids": ["train/dogs/02.jpg", "train/dogs/98.jpg"],
        "exact": True,
        "crosses_splits": [],
        "conflicting_tasks": [],
    }
    assert near == {
        "ids": [f"test/cats/{hostile}.jpg", "train/dogs/00.jpg"],
        "exact": False,
        "crosses_splits": ["default"],
        "conflicting_tasks": ["label"],
    }
    assert record["failed"] == {"undecodable": ["test/dogs/95.jpg"]}
    html = page.read_text()
    assert html.count("<img ") == 4
    assert html.count("data:image/jpeg;base64,") == 4
    assert "<script>" not in html
    assert "x&#34;&gt;&lt;script&gt;alert(1)&lt;.jpg" in html
    assert "://" not in html
    assert html.index("near-duplicates") < html.index("equal bytes")  # the more serious first
    code, _, err = command_line("check", "folder", "--data", root, "--page", page)
    assert (code, "--force" in err) == (2, True)
    code, out, _ = command_line("check", "folder", "--data", root)
    assert "near-duplicates (perceptual hash): 1 clusters of 2 images" in out
    assert "1 cross the parts of split 'default'" in out


def rows_of(cluster: dict) -> list[int]:
    return [int(name.removesuffix(".jpg")) for name in cluster["ids"]]


def test_clusters_against_all_pairs() -> None:
    """The search by bands finds what comparing all pairs finds."""
    random = np.random.default_rng(0)
    phash = random.integers(0, 1 << 63, 300).astype(np.uint64)
    for row in range(100):  # near-copies with up to 6 bits turned over
        bits = random.choice(64, random.integers(0, 7), replace=False)
        phash[200 + row] = phash[row] ^ np.uint64(sum(1 << int(bit) for bit in bits))
    index = Index(np.array([f"{row}.jpg" for row in range(300)]))
    content = random.integers(1, 255, (300, 32)).astype(np.uint8)
    for distance in (0, 3, 4, 8):
        found = find_clusters(index, content, phash, np.ones(300, bool), distance=distance)
        apart = [[(int(a) ^ int(b)).bit_count() for b in phash] for a in phash]
        wanted = {(a, b) for a in range(300) for b in range(a) if apart[a][b] <= distance}
        joined = {(a, b) for one in found for a in rows_of(one) for b in rows_of(one) if a > b}
        assert wanted <= joined
        assert len(joined) <= len(wanted) + 5  # chains join a few more


def leaking(n_images: int, *, leak: bool) -> Index:
    """Tweets whose ids hold their time; with `leak`, negative ones go on for longer, as in B-T4SA."""
    random = np.random.default_rng(3)
    labels = np.arange(n_images) % 3
    end = np.where((labels == 0) & leak, 81_000, 78_500)
    prefix = random.integers(76_800, end)
    tweets = prefix * 10**13 + random.integers(0, 10**13, n_images)
    ids = np.array(
        [f"data/{p}/{t}-{k}.jpg" for p, t, k in zip(prefix, tweets, random.integers(1, 5, n_images), strict=True)]
    )
    task = Task("polarity", "single", ("negative", "neutral", "positive"))
    order = random.permutation(n_images)
    parts = np.arange(n_images) % 4 // 2 * 2
    return Index(ids[order], {"polarity": Labels(task, labels[order])}, {"default": Split("default", parts)})


def test_leak_of_time() -> None:
    """With the leak, the date alone is right on half of the images; without it, on a third."""
    for leak in (True, False):
        index = leaking(3000, leak=leak)
        labels = index.labels["polarity"]
        families, _ = traces_of_ids(index.ids, classes=("negative", "neutral", "positive"))
        found = probe(families["digits"], labels)
        assert found is not None
        assert found["chance"] == pytest.approx(1 / 3)
        # By hand: 0.6 of the negatives are late, hence certain; of the others one class is right: (0.6 + 1) / 3 = 0.53.
        assert (found["score"] > 0.5) == leak
        assert abs(found["score"] - 1 / 3) < 0.05 or leak
        parts = index.splits["default"].values
        train, test = np.flatnonzero(parts == 0), np.flatnonzero(parts == 2)
        x = np.concatenate([*families.values()], axis=1)
        scores = tree_scores(labels.task, x[train], labels.values[train], x[test])
        assert scores.shape == (len(test), 3)
        np.testing.assert_allclose(scores.sum(axis=1), 1)
        accuracy = (scores.argmax(axis=1) == labels.values[test]).mean()
        assert (accuracy > 0.5) == leak


def test_leak_of_time_in_check(tmp_path: Path, command_line: Callable[..., tuple[int, str, str]]) -> None:
    """``check`` prints the probe beside chance, from the lists alone, and names where the leak lies."""
    index = leaking(1200, leak=True)
    codes = index.labels["polarity"].values.tolist()
    lines = [f"{name} {code}\n" for name, code in zip(index.ids.tolist(), codes, strict=True)]
    for part, rows in (("train", lines[:800]), ("val", lines[800:1000]), ("test", lines[1000:])):
        text(tmp_path / f"b-t4sa_{part}.txt", "".join(rows))
    code, out, err = command_line("check", "b-t4sa", "--data", tmp_path, "--lists-only", "--json")
    assert code == 0, err
    shortcuts = {one["family"]: one for one in json.loads(out)["shortcuts"]}
    assert shortcuts["digits"]["score"] > 0.5
    assert shortcuts["order"]["score"] < 0.42
    assert shortcuts["everything"]["chance"] == pytest.approx(1 / 3)
    code, out, _ = command_line("check", "b-t4sa", "--data", tmp_path, "--lists-only")
    assert "(chance 0.333, accuracy" in out
    assert "files were not read" in out


def test_other_shortcuts(tmp_path: Path) -> None:
    """File size and modification time leak where they are planted."""
    names = [f"{n:03}.jpg" for n in np.random.default_rng(0).permutation(60)]
    rows = []
    for at, name in enumerate(names):
        side = 24 if at % 2 else 40
        path = picture(tmp_path / "images" / name, at, side=side)
        os.utime(path, (1e9, 1e9 + (at % 2) * 1e6 + at))
        rows.append(f"images/{name},{'late' if at % 2 else 'soon'}\n")
    text(tmp_path / "labels.csv", "image,when\n" + "".join(rows))
    corpus = find_corpus("csv")
    done = check(corpus, corpus.read(tmp_path, {"single": "when"}), progress=False)
    scores = {one["family"]: one["score"] for one in done["shortcuts"]}
    assert scores["modification time"] == 1.0
    assert scores["width and height"] == 1.0
    assert scores["digits"] < 0.8


def test_names_of_classes_are_no_shortcut() -> None:
    """Where folders are the classes, folder and order are left out, and the probe says so."""
    ids = [f"{name}/{n}.jpg" for name in ("anger", "joy") for n in range(40)]
    families, left_out = traces_of_ids(ids, classes=("anger", "joy"))
    assert left_out == ("folder", "order")
    assert list(families) == ["digits", "hexadecimal"]
    assert traces_of_ids([f"a/{n}.jpg" for n in range(9)], classes=("anger",))[1] == ()


@pytest.mark.parametrize("kind", ["multi", "regression"])
def test_probes_of_other_kinds(kind: str) -> None:
    """Several labels and ratings are probed too: 1 where they follow the number in the id, chance where not."""
    random = np.random.default_rng(0)
    numbers = random.integers(0, 1000, 400)
    ids = [f"{row}x{number}.jpg" for row, number in enumerate(numbers)]
    if kind == "multi":
        task = Task("t", "multi", ("low", "odd"))
        values = np.stack([numbers < 500, random.integers(0, 2, 400)], axis=1).astype(np.uint8)
    else:
        task = Task("t", "regression", ("a",), (0.0, 1000.0))
        values = numbers[:, None].astype(np.float32)
    labels = Labels(task, values)
    found = probe(traces_of_ids(ids)[0]["digits"], labels)
    assert found is not None
    assert (0.65 < found["score"] < 0.85) if kind == "multi" else found["score"] > 0.95
    x = traces_of_ids(ids)[0]["digits"]
    assert tree_scores(task, x[:300], values[:300], x[300:]).shape == (100, len(task.classes))
    assert probe(np.zeros((4, 1)), Labels(task, values[:4])) is None
