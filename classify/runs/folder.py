"""Runs as folders on disk: written whole or not at all, found again by their report.

::

    FOLDER/
        config.toml        the settings; `classify run --config` repeats them
        report.json        the results: metrics with intervals, baselines, history, timings, passports
        predictions.csv    every scored image: id, part, truth, probabilities (or values), calibrated ones
        adjustment.json    postprocessing fitted on the validation part: calibration, thresholds
        model/             the fitted head, and how far from its training images a vector lies
        plots/             figures, as SVG
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.config import RunConfig, dump_config, load_config, shared_place
from classify.console import html_table
from classify.data.tasks import Part
from classify.errors import ConfigError, ModelError, RunError
from classify.evaluation.novelty import Novelty
from classify.evaluation.postprocessing import POSTPROCESSING, Postprocessing, read_postprocessing
from classify.evaluation.wording import interval_text, metric_title
from classify.figures.charts import run_figures
from classify.heads.persistence import save_head
from classify.json_file import try_place
from classify.runs.findings_json import CURVE, EXPLANATIONS, SEEDS
from classify.runs.predictions import PartPredictions, read_predictions, write_predictions
from classify.runs.report_json import REPORT, Report, read_report, report_task
from features_store.atomic import atomic_folder
from features_store.errors import ExistsError
from features_store.schema import Task

CONFIG, PREDICTIONS = "config.toml", "predictions.csv"
_OWN = {CONFIG, REPORT, PREDICTIONS, POSTPROCESSING, "model", "plots", EXPLANATIONS, CURVE, SEEDS}


@dataclass(frozen=True)
class Run:
    """A run that lies on disk."""

    folder: Path
    report: Report

    @property
    def task(self) -> Task:
        """The task that the head was fitted on."""
        return report_task(self.report)

    @cached_property
    def config(self) -> RunConfig:
        """The settings of the run; ``config.toml``, which may not be a link, is read at first use."""
        place = self.folder / CONFIG
        if place.is_symlink():
            raise RunError(f"{place} is a symbolic link; the settings of a run lie in it")
        return load_config(place)

    @cached_property
    def predictions(self) -> dict[str, PartPredictions]:
        """The predictions, by part; ``predictions.csv`` is read at first use."""
        return read_predictions(self.folder / PREDICTIONS, self.task)

    @property
    def passports(self) -> dict[str, Mapping[str, Any]]:
        """How each of the run's blocks was made, in their order; a run that does not say it is refused."""
        blocks, known = self.report.blocks, self.report.passports
        if not blocks or not set(blocks) <= set(known):
            raise ModelError(f"{self.folder} does not say how its blocks were made; run it again with this version")
        return {name: known[name] for name in blocks}

    def part(self, name: str) -> PartPredictions:
        """Return the predictions of one part."""
        if name not in self.predictions:
            raise RunError(f"{self.folder / PREDICTIONS} has no {name} images, and the report of the run has")
        return self.predictions[name]

    @cached_property
    def postprocessing(self) -> Postprocessing:
        """Calibration and thresholds; ``adjustment.json`` is read at first use."""
        try:
            return read_postprocessing(self.folder).check(self.task)
        except ConfigError as error:
            raise RunError(f"cannot read {self.folder / POSTPROCESSING}: {error}") from error

    def _repr_html_(self) -> str:
        report, part = self.report, self.report.judged_part
        found = {"this head": report.metrics[part], "majority": report.baselines["majority"].get(part, {})}
        if clean := (report.crossing or {}).get("parts", {}).get(part):
            found[f"without {clean['n_left_out']} that cross"] = clean["metrics"]
        rows = [["metric", *found]]
        for name in report.metrics[part]:
            cells = [interval_text(of[name]) if name in of else "–" for of in found.values()]
            rows.append([metric_title(name), *cells])
        title = f"{report.head} on {report.task}: {report.n_images(part)} {part} images ({self.folder})"
        return html_table(title, rows) + "".join(f"<p>{escape(text)}</p>" for text in report.warnings)


def check_free(folder: Path, *, force: bool) -> None:
    """Refuse a place that is taken or cannot be written, before any work is done for it."""
    try_place(folder, "the run ")
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if not (folder / REPORT).is_file():
        raise RunError(f"{folder} exists and is not a run, so it will not be replaced; choose another place with --out")
    if not force:
        raise RunError(
            f"{folder} holds a run already; replace it with --force (force=True), or choose another place with --out"
        )
    if added := [name for name in sorted(os.listdir(folder)) if name not in _OWN and not name.startswith(".")]:
        raise RunError(f"{folder / added[0]} is no part of the run, and would go with it; move it to another place")


@contextmanager
def new_folder(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary folder to write into, and put it in its place when the block ends without an error."""
    check_free(folder, force=force)
    try:
        with atomic_folder(folder, force=force) as temporary:
            yield temporary
    except ExistsError:
        check_free(folder, force=force)  # another process was here meanwhile: the same words as before the work
        raise


def write_run(
    config: RunConfig,
    report: Report,
    parts: Mapping[str, Part],
    scores: Mapping[str, NDArray[np.float64]],
    *,
    head: Any,
    postprocessing: Postprocessing,
    novelty: Novelty | None = None,
    force: bool = False,
) -> Run:
    """Write the folder of a run whose head gave *scores* of *parts*, whole or not at all, and open it."""
    predictions = {
        name: PartPredictions(part.ids, part.y, scores[name], part.groups, postprocessing.calibrated(scores[name]))
        for name, part in parts.items()
    }
    judged = predictions[report.judged_part]
    figures = run_figures(
        report_task(report),
        confusion=report.confusion.get(report.judged_part),
        history=report.history,
        y_true=judged.y_true,
        y_score=judged.y_score,
    )
    place = config.folder.absolute()
    tested = config.tested and shared_place(config.tested, place)
    shared = dataclasses.replace(config, store=shared_place(config.store, place), tested=tested)
    texts = {
        CONFIG: dump_config(shared),
        REPORT: _json(dict(report)),
        POSTPROCESSING: _json(postprocessing.as_json()),
        **{f"plots/{name}.svg": figure for name, figure in figures.items()},
    }
    with new_folder(config.folder, force=force) as folder:
        (folder / "plots").mkdir()
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        write_predictions(folder / PREDICTIONS, report_task(report), predictions)
        save_head(head, folder / "model", None if novelty is None else novelty.files())
    return read_run(config.folder)


def _json(values: Any) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_run(folder: Path) -> Run:
    """Open one run."""
    return Run(folder, read_report(folder))


def find_runs(places: Iterable[Path]) -> list[Run]:
    """Open the runs at and below the given places, each once, sorted by path."""
    found: dict[Path, Path] = {}
    for place in places:
        folders = list(_run_folders(place))
        if not folders:
            state = "holds no run" if place.exists() else "does not exist"
            raise RunError(f"{place} {state}; give run folders, or folders that hold some, like runs/emoji")
        found.update({folder.resolve(): folder for folder in folders})
    return [read_run(folder) for _, folder in sorted(found.items())]


def _run_folders(place: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        if isinstance(error, PermissionError):  # the runs in it would be missing without a word
            raise error

    for folder, folders, files in os.walk(place, onerror=refuse):
        # What begins with a dot is still being written, or was left by a process that was killed.
        folders[:] = [name for name in folders if not name.startswith(".")]
        if REPORT in files:
            yield Path(folder)
