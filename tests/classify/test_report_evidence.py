"""The page's evidence: pictures found through ids, what lies beside a run, hostile names, a closed door for scripts."""

import base64
import hashlib
import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from classify.config import RunConfig
from classify.errors import RunError
from classify.figures import charts
from classify.json_file import write_json
from classify.pages.page import report_page, write_report_page
from classify.pages.pictures import Pictures, surest_errors
from classify.runs.folder import find_runs
from classify.runs.predictions import PartPredictions
from classify.runs.report_json import Report
from classify.runs.train import run
from classify.studies.audit import audit
from features_store import Index, Labels, Split, Task, write_index

from .conftest import write_block

EVIL = "<script>alert(1)</script>"
IDS = [f"{EVIL.replace('/', '∕')}{i}.png" if i % 3 else f"faces/{i:03}.png" for i in range(120)]
BLOCK = "alpha.pool"


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    """Return runs, audit, ablation, curve and explanations of a corpus named by scripts, and its pictures."""
    base = tmp_path_factory.mktemp("hostile")
    random = np.random.default_rng(0)
    y = random.integers(3, size=120)
    X = random.normal(size=(120, 8)) + 1.5 * np.eye(3, 8)[y]
    task = Task("kind", "single", (EVIL, "b&<b>b</b>", '"c" onload="x"'), source=EVIL)
    parts = Split("default", random.permutation(np.repeat([0, 1, 2], [60, 25, 35])))
    name = "<script>corpus"
    store = base / "features" / name
    store.mkdir(parents=True)
    values = Labels(Task("feel", "regression", ("valence", EVIL), (1.0, 9.0)), 5 + X[:, :2])
    labels = {"kind": Labels(task, y), "feel": values}
    index = Index(np.array(IDS), labels, {"default": parts}, None, None, {"name": EVIL, "options": {EVIL: EVIL}})
    write_index(store / "index.h5", index)
    X[np.flatnonzero(parts.values == 2)[:2]] = X[np.flatnonzero(parts.values == 0)[:2]]
    write_block(store, index, BLOCK, X.astype(np.float32), source=EVIL)
    runs = base / "runs" / name
    for about in ("kind", "feel"):
        for head in ("linear", "dummy"):
            run(RunConfig(str(store), about, head, resamples=40, out=str(runs / about / head)))
        if about == "kind":  # a second head, so that there is a pair
            weak = RunConfig(str(store), about, "linear", settings={"C": 0.01}, resamples=40)
            run(replace(weak, out=str(runs / about / "weak")))
        write_json(runs / about / "audit.json", audit(str(store), about, threshold=0.999))
    bars = {"weighted_f1": {"value": 0.5, "low": 0.4, "high": 0.6}}
    subsets = [{"blocks": [BLOCK], "metrics": bars}, {"blocks": [BLOCK, EVIL], "metrics": bars}]
    gains = {EVIL: {"alone": bars["weighted_f1"]}}
    ablation = {"task": "kind", "metric": "weighted_f1", "head": EVIL, "subsets": subsets, "gains": gains}
    write_json(runs / "kind" / "ablation-svm.json", ablation)
    point = {"value": 0.5, "low": 0.4, "high": 0.6, "lowest": 0.45, "highest": 0.55}
    points = [{"n": 20, **point}, {"n": 60, **point}]
    write_json(runs / "kind" / "linear" / "curve.json", {"metric": "weighted_f1", "part": "test", "points": points})
    explanations = runs / "kind" / "linear" / "explanations"
    explanations.mkdir()
    Image.new("RGB", (300, 200), "red").save(explanations / "a.png")
    told = {"file": "a.png", "id": EVIL, "predicted": EVIL, "blocks": {EVIL: 0.7}, "concepts": [EVIL]}
    write_json(explanations / "explanations.json", {"images": [told], "deletion": {"hottest": 0.3, "n_images": 9}})
    data = base / "data" / name
    (data / "faces").mkdir(parents=True)
    for i, one in enumerate(IDS):
        size = (400, 200) if i % 2 else (90, 160)
        Image.new("RGBA" if i % 5 else "P", size, (i, 90, 200, 120) if i % 5 else 3).save(data / one)
    return runs, data


@pytest.fixture(scope="session")
def page(hostile):
    """Return the page about the hostile corpus."""
    runs, data = hostile
    return report_page(find_runs([runs]), data=data)


def test_no_name_becomes_markup(page):
    """The only script is the page's own; each hostile name is there as text."""
    assert page.count("<script") == 1
    assert "<script>alert" not in page
    assert "<b>b</b>" not in page
    assert page.count("&lt;script&gt;alert(1)") > 20
    assert '"c" onload' not in page


def test_script_is_the_one_that_the_policy_names(page):
    """The content security policy allows nothing but a script of this digest."""
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r'\son\w+="', page)


def test_every_part_of_the_evidence_is_there(page):
    """Pairs, data card, near-duplicates, doubtful labels, ablation, curve, calibration, errors, overlays, baselines."""
    for words in (
        "Pairwise comparison", "The data", "Near-duplicates across parts", "Doubtful labels", "training images",
        "Ablation: which blocks help", "Reliability", "Surest errors", "where the networks look", "id-only baseline",
        "chance baseline", "Deletion check", "true and predicted", "have a near-duplicate in training", "random",
    ):  # fmt: skip
        assert words in page, words


def test_pictures_are_small_and_whole(page):
    """Each picture is a JPEG within the page, of the size at which its tag shows it, times one and a half."""
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" width="(\d+)" height="(\d+)"', page)
    assert len(pictures) > 20
    for data, width, height in pictures:
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.width == pytest.approx(1.5 * int(width), abs=1)
            assert picture.height == pytest.approx(1.5 * int(height), abs=1)
            assert max(picture.size) <= 264
    assert page.count("<img") == len(pictures)
    assert len(page) < 5_000_000


def test_page_without_pictures_says_so(hostile, tmp_path, monkeypatch):
    """No folder: the page comes all the same, and names the option; a wrong folder is an error."""
    monkeypatch.chdir(tmp_path)
    runs = find_runs([hostile[0]])
    page = report_page(runs)
    assert "classify report --data FOLDER" in page
    assert "nopicture" in page
    with pytest.raises(RunError, match="is not a folder"):
        write_report_page(runs, tmp_path / "page.html", data=tmp_path / "none")


def test_emoji_are_credited(polarity_run, runs_folder):
    """Where a corpus is of OpenMoji pictures, the page names them and their licence."""
    from classify.runs.folder import Run

    of_emoji = Run(polarity_run.folder, Report.of({**polarity_run.report, "reader": {"name": "emoji"}}))
    assert "OpenMoji" in report_page([of_emoji])
    assert "CC BY-SA 4.0" in report_page([of_emoji])
    assert "OpenMoji" not in report_page([polarity_run])


def test_ids_cant_reach_outside(tmp_path):
    """Paths that leave the corpus' folder, also through links, show no picture; nor do files that are none."""
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    root = tmp_path / "corpus"
    root.mkdir()
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "text.png").write_text("no picture")
    Image.new("L", (300, 10)).save(root / "good.png")
    pictures = Pictures(root)
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "text.png", "none.png", "", "a\0b"):
        assert pictures.of(name) is None
    good = pictures.of("good.png")
    assert (good.width, good.height) == (96, 3)


def test_pictures_stop_at_the_budget(tmp_path, monkeypatch):
    """The page's size is bounded, whatever number of pictures it could show."""
    monkeypatch.setattr("classify.pages.pictures.MAX_BYTES", 5000)
    random = np.random.default_rng(0)
    for i in range(20):
        noise = random.integers(255, size=(140, 140, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.png")
    pictures = Pictures(tmp_path)
    shown = [one for one in (pictures.of(f"{i}.png") for i in range(20)) if one]
    assert pictures.full
    assert sum(len(one.uri) for one in shown) < 40_000


def test_surest_errors_come_first(tmp_path):
    """Wrong images only, by how sure the head was; what is true is marked."""
    task = Task("t", "single", ("a", "b", "c"))
    score = np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    part = PartPredictions(np.array(["p", "q", "r", "s"]), np.array([0, 0, 1, 1]), score)
    cards = surest_errors(task, part, Pictures(tmp_path))
    assert [card["id"] for card in cards] == ["q", "r", "s"] or [card["id"] for card in cards] == ["q", "s", "r"]
    assert [bar["name"] for bar in cards[0]["bars"] if bar["true"]] == ["a"]
    assert (cards[0]["truth"], cards[0]["predicted"]) == ("a", "b")


def test_figures_are_well_formed():
    """Each new figure parses and has a title; hostile block names stay text."""
    point = {"value": 0.5, "low": 0.4, "high": 0.6, "lowest": 0.45, "highest": 0.55}
    bins = [{"low": 0.5, "high": 0.6, "n": 9, "said": 0.55, "true": 0.4}]
    bar, nothing = {"value": 0.5, "low": 0.4, "high": 0.6}, {"value": None, "low": None, "high": None}
    subsets = [{"blocks": [EVIL], "metrics": {"f1": bar}}, {"blocks": ["b", EVIL], "metrics": {"f1": nothing}}]
    found = {"task": EVIL, "metric": "f1", "blocks": {}, "subsets": subsets, "baseline": {"f1": nothing}}
    values = np.random.default_rng(0).uniform(1, 9, size=(3000, 2))
    for figure in (
        charts.learning_chart([{"n": 20, **point}, {"n": 99, **point}], "F1", None),
        charts.reliability_chart(bins, bins),
        charts.reliability_chart(bins, None),
        charts.ablation_chart(found),
        charts.plane_chart(values, values[::-1], names=("valence", "arousal"), span=(1, 9)),
    ):
        root = ET.fromstring(figure)
        assert root.find("{*}title") is not None
        assert "nan" not in figure
        assert len(figure) < 120_000


def test_findings_of_other_images_are_left_out(hostile, tmp_path):
    """An audit of other labels is not shown beside these runs."""
    shutil.copytree(hostile[0] / "kind", tmp_path / "kind")
    path = tmp_path / "kind" / "audit.json"
    found = json.loads(path.read_text())
    write_json(path, {**found, "part_digests": {"test": "other"}}, force=True)
    assert "Doubtful labels <small>" not in report_page(find_runs([tmp_path]), data=hostile[1])
    path.write_text("[1]")
    with pytest.raises(RunError, match=r"audit\.json holds no JSON object"):
        report_page(find_runs([tmp_path]))
