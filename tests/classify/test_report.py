"""The page: self-contained, honest, escaped; the figures: well-formed; the boards: comparable things only."""

import json
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from classify.config import RunConfig
from classify.errors import RunError
from classify.figures import charts, svg
from classify.pages.leaderboard import leaderboards, standing_words
from classify.pages.page import report_page, write_report_page
from classify.pages.tables import leaderboard_text
from classify.runs.folder import Run, find_runs
from classify.runs.report_json import Report
from classify.runs.train import run
from features_store import ExistsError, Labels, Split, Task
from features_store.errors import StoreError

from .conftest import EVOKES

SVG = "{http://www.w3.org/2000/svg}"


class Elements(HTMLParser):
    """Collects tags with their attributes, ids and text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page(runs_folder):
    """Return the page about all runs."""
    return report_page(find_runs([runs_folder]))


def test_page_needs_nothing_from_elsewhere(page):
    """No script from elsewhere, no link out, no outside picture or style; every inner link has its target."""
    elements = Elements(page)
    tags = {tag for tag, _ in elements.tags}
    assert not tags & {"link", "iframe", "object", "base", "form"}
    assert [attrs for tag, attrs in elements.tags if tag == "script"] == [{}]
    assert not any(key in attrs for _, attrs in elements.tags for key in ("src", "onclick", "onload"))
    ids = [attrs["id"] for _, attrs in elements.tags if "id" in attrs]
    links = [attrs["href"] for tag, attrs in elements.tags if tag == "a"]
    assert len(ids) == len(set(ids))
    assert all(link[1:] in ids for link in links)
    assert "url(" not in page


def test_hostile_names_stay_text(page):
    """A class that is a script is shown as text, in tables and figures, and nowhere as markup."""
    assert EVOKES.classes[2] not in page
    assert "&lt;script&gt;alert(" in page
    assert EVOKES.classes[2] in " ".join(Elements(page).text)


def test_every_task_stands_beside_its_baseline(page):
    """Each board has its baseline line; each head says in words what it is shown to know."""
    assert page.count('<th scope="row">majority baseline</th>') == 4
    assert page.count("better than its own answers dealt to the images at random by") >= 4


@pytest.fixture(scope="module")
def noise_runs(make_store, tmp_path_factory):
    """Return runs of the linear head on vectors that say nothing of three balanced classes, and on a scale."""
    random = np.random.default_rng(5)
    y, parts = random.permutation(np.arange(240) % 3), Split("default", np.repeat([0, 1, 2], [100, 40, 100]))
    labels = [
        Labels(Task("kind", "single", ("a", "b", "c")), y),
        Labels(Task("scale", "regression", ("v",), (-1.0, 1.0)), random.uniform(-1, 1, size=(240, 1))),
    ]
    place = make_store({"a.pool": random.normal(size=(240, 20)).astype(np.float32)}, labels, [parts])
    out = tmp_path_factory.mktemp("runs")
    made = [("kind", "linear"), ("scale", "linear"), ("kind", "svm")]
    return [run(RunConfig(str(place), t, h, resamples=60, out=str(out / f"{t}-{h}"))) for t, h in made]


def test_noise_is_not_called_knowledge(noise_runs):
    """A head on noise beats the majority's macro F1, which lies below a guess; the page says that nothing is shown."""
    report = noise_runs[0].report
    assert report["metrics"]["test"]["macro_f1"]["low"] > report["baselines"]["majority"]["test"]["macro_f1"]["value"]
    page = report_page(noise_runs[:2])
    assert "not shown to know anything of the images by weighted F1" in page
    assert "better than its own answers dealt to the images at random by" not in page
    assert 'verdict unclear"' in page
    assert "predicts its labels" not in page


def test_the_first_of_a_board_owns_up_to_the_choice(noise_runs):
    """Of two heads on the same test images one is first by these very images; of one there was no choice."""
    (board,) = leaderboards([noise_runs[0], noise_runs[2]])
    words = "First of 2 runs by these very test images: expect it a few points lower on new ones."
    assert words in leaderboard_text(board)
    assert words in report_page([noise_runs[0], noise_runs[2]])
    assert "First of" not in report_page(noise_runs[:1])


def test_mixed_result_names_both_sides(polarity_run):
    """Better by one metric and not by another is said of each."""
    report = json.loads(json.dumps(dict(polarity_run.report)))
    head = report["verdicts"]["test"]["head"]
    head["weighted_f1"]["verdict"] = "unclear"
    head["accuracy"]["verdict"] = "worse"
    (board,) = leaderboards([Run(polarity_run.folder, Report.of(report))])
    assert board.rows[0].standing == "mixed"
    words = standing_words(board.rows[0], board)
    assert "better than its own answers dealt to the images at random by macro F1, balanced accuracy;" in words
    assert "not shown to know anything of the images by weighted F1" in words
    assert "worse than the majority baseline by accuracy" in words


def test_a_run_without_verdicts_says_so(polarity_run):
    """A report of an earlier version holds none; nothing is made up."""
    report = {**polarity_run.report, "verdicts": {}, "n_tried": 1}  # as such a report comes in
    (board,) = leaderboards([Run(polarity_run.folder, Report.of(report))])
    assert board.rows[0].standing == "undefined"
    assert "no verdict" in report_page([Run(polarity_run.folder, Report.of(report))])


def test_boards_hold_only_comparable_runs(runs_folder, polarity_run):
    """Another set of scored images is another board; the best run leads, errors ranked from below."""
    other = Run(polarity_run.folder, Report.of({**polarity_run.report, "part_digests": {"test": "other"}}))
    assert len(leaderboards([polarity_run, other])) == 2
    found = {board.task: board for board in leaderboards(find_runs([runs_folder]))}
    assert len(found) == 4
    assert [row.run.report.head for row in found["valence"].rows] == ["linear", "dummy"]
    assert [row.run.report.head for row in found["polarity"].rows] == ["linear", "dummy"]


def test_file_is_written_once(polarity_run, tmp_path):
    """An existing page stays unless force is given; a place that cannot be written is an error of ours."""
    write_report_page([polarity_run], tmp_path / "page.html")
    with pytest.raises(ExistsError):
        write_report_page([polarity_run], tmp_path / "page.html")
    write_report_page([polarity_run], tmp_path / "page.html", force=True)
    with pytest.raises(StoreError, match="write"):
        write_report_page([polarity_run], tmp_path / "page.html" / "below.html")


def test_run_without_its_predictions_says_so(runs_folder, tmp_path):
    """A scatter needs predictions.csv: without it the error names the file."""
    shutil.copytree(runs_folder / "valence" / "linear", tmp_path / "run")
    (tmp_path / "run" / "predictions.csv").unlink()
    with pytest.raises(RunError, match=r"predictions\.csv"):
        report_page(find_runs([tmp_path]))


def test_figures_are_well_formed(runs_folder):
    """Every SVG in the run folders parses, has a title and no number that is not one."""
    figures = sorted(runs_folder.rglob("*.svg"))
    assert {path.stem for path in figures} == {"confusion", "scatter-valence", "scatter-arousal"}
    for path in figures:
        root = ET.fromstring(path.read_text())
        assert root.find("{*}title") is not None
        assert "nan" not in path.read_text()


def test_confusion_plot_shows_shares_and_counts():
    """Counts as they are, shares of the row; an empty row has dashes."""
    drawn = charts.confusion_chart([[3, 1], [0, 0]], ["a<b", "c"])
    texts = [element.text for element in ET.fromstring(drawn).iter(f"{SVG}text")]
    assert {"75%", "25%", "3", "1", "–", "a<b"} <= set(texts)


def test_curve_plot_marks_the_lowest_validation_loss():
    """Long histories stay light, and the epoch named is the best one."""
    history = [{"epoch": i, "loss": 1 / i, "validation_loss": abs(i - 703)} for i in range(1, 3001)]
    drawn = charts.loss_chart(history)
    assert "lowest at epoch 703" in drawn
    assert len(drawn) < 40_000


def test_scatter_plot_is_bounded():
    """At most 2,000 dots, none outside the frame."""
    values = np.random.default_rng(0).normal(0, 9, size=50_000)
    dots = list(ET.fromstring(charts.scatter_chart(values, values, name="v", span=(-1, 1))).iter(f"{SVG}circle"))
    assert len(dots) == 2000
    assert all(66 <= float(dot.get("cx")) <= 366 for dot in dots)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (1, 9, [2, 4, 6, 8]), (-1, 1, [-1, -0.5, 0, 0.5, 1]), (2, 2, [2])],
)
def test_ticks_are_round(low, high, expected):
    """Ticks are the round numbers between the ends."""
    assert svg.nice_ticks(low, high) == pytest.approx(expected)


def test_board_of_the_baseline_alone(runs_folder):
    """A board with only the dummy says so and ranks nobody."""
    dummy = [run for run in find_runs([runs_folder]) if run.report["head"] == "dummy"]
    assert "Only the baseline itself was run." in report_page(dummy[:1])


def test_unlabelled_split_part_falls_back_to_validation(polarity_run):
    """Without test metrics, the board is read off the validation part."""
    report = {
        **polarity_run.report,
        "metrics": {k: v for k, v in polarity_run.report["metrics"].items() if k != "test"},
    }
    (board,) = leaderboards([replace(polarity_run, report=Report.of(report))])
    assert (board.part, board.n_images) == ("validation", report["n_validation"])
