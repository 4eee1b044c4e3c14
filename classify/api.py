"""The Python interface: open a store, fit a head, cross-validate, report, predict.

::

    import classify
    run = classify.run("features/emoji", "polarity", "svm")
    print(classify.cross_validate("features/emoji", "polarity", "svm", folds=5))
    classify.report(run, "report.html")
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classify.config import KEYS, RunConfig, load_config
from classify.console import columns, html_table, paragraph
from classify.data.folds import cuts, deal_strata
from classify.data.kinds import kind_of
from classify.data.seen import find_trained, refuse_trained
from classify.data.tasks import joined
from classify.errors import ConfigError
from classify.evaluation.baselines import constant_scores
from classify.evaluation.bootstrap import LEAST_UNITS, Interval, Spread, intervals
from classify.evaluation.verdict import Judgement, judge
from classify.evaluation.wording import interval_text, metric_title
from classify.heads import ALL_HEADS, head_options
from classify.runs.folder import Run, find_runs, read_run
from classify.runs.layout import lay_out, task_head, unfitted_head
from classify.runs.train import head_scores
from classify.studies.cross_corpus import run_config
from features_store import Store, open_store
from features_store.errors import unknown_name
from features_store.schema import Task

if TYPE_CHECKING:
    from classify.inference.predictor import Predictor

StoreLike = str | Path | Store
_RUNS_ONLY = ("calibration", "force", "map", "out", "preset", "refit", "tested")  # mean nothing without a run folder


def run(
    store: StoreLike,
    task: str | None = None,
    head: str | None = None,
    *,
    blocks: Sequence[str] = (),
    force: bool = False,
    **options: Any,
) -> Run:
    """Fit a head on a task and leave a run folder, as ``classify run`` does.

    Parameters
    ----------
    task, head : str
        A preset knows them; without one the head is ``auto``.
    blocks : sequence of str
        Empty: those of the preset, or every block of vectors.
    force : bool
        Whether a run that lies in the same place may be replaced.
    **options
        Keys of a run's file (``split``, ``seed``, ``preset``, ``out``, ...); all others are options of the head.

    Returns
    -------
    Run

    Raises
    ------
    AffectoryError
        A name or an option is unknown, or the place is taken.
    """
    return run_config(_config(store, task, head, blocks, options), force=force)


def _config(
    store: StoreLike, task: str | None, head: str | None, blocks: Sequence[str], options: dict[str, Any]
) -> RunConfig:
    of_run = {name: value for name, value in options.items() if name in KEYS and name != "set"}
    settings = dict(options.get("set") or {}) | {name: v for name, v in options.items() if name not in KEYS}
    given = {"store": _place(store), "task": task, "head": head, "blocks": blocks or None, "set": settings or None}
    config = load_config(None, {**given, **of_run}, where="the arguments")
    if config.head in ALL_HEADS:
        known = {name for kind in ALL_HEADS[config.head].kinds for name in head_options(config.head, kind)}
        for name in settings:
            if name not in known:
                raise ConfigError(unknown_name(f"argument or option of head {config.head}", name, {*KEYS, *known}))
    return config


def _place(store: StoreLike) -> str:
    """Return the path that opens the same store again."""
    if not isinstance(store, Store):
        return str(store)
    if len(store.paths) == 1:
        return str(store.paths[0])
    folders = {path.parent for path in store.paths}
    folder = next(iter(folders))
    if len(folders) == 1 and set(open_store(folder).paths) == set(store.paths):
        return str(folder)
    listed = ", ".join(map(str, store.paths))
    raise ConfigError(
        f"the store was opened from several places ({listed}); put the dumps into one folder and give that"
    )


@dataclass(frozen=True)
class CrossValidation:
    """The result of a cross-validation.

    Parameters
    ----------
    metrics, majority : mapping of str to Interval
        Of the head over all images, each scored by a head that was fitted without it; and of the most common label (or
        the mean) of all these images, the same for each. (Found anew without each fold, it would fall below a guess:
        what is left out of the others is what they have too little of.)
    verdicts : mapping of str to Judgement
        By metric, whether the head knows anything of the images; empty where too few images can be dealt.
    by_fold : list of dict
        The metrics of each fold.
    scores : ndarray
        Out-of-fold probabilities or values.
    crossing : str
        What crosses where the split parts groups; empty where it does not.
    """

    task: Task
    head: str
    metrics: dict[str, Interval]
    majority: dict[str, Interval]
    by_fold: list[dict[str, float]]
    ids: NDArray[np.str_]
    folds: NDArray[np.int64]
    scores: NDArray[np.float64]
    verdicts: dict[str, Judgement] = field(default_factory=dict)
    crossing: str = ""

    @property
    def title(self) -> str:
        """One line: what was done."""
        return f"{self.head} on {self.task.name}: {len(self.by_fold)}-fold cross-validation, {len(self.ids)} images"

    def __str__(self) -> str:
        better = [metric_title(name) for name, one in self.verdicts.items() if one.verdict == "better"]
        verdict = "no verdict: too few images can be dealt"
        if self.verdicts:
            verdict = "not shown to know anything of the images"
        if better:
            verdict = f"better than its own answers dealt to the images at random by {', '.join(better)}"
        crossing = [f"  ! {self.crossing}"] if self.crossing else []
        return paragraph([self.title, *columns(self._rows()), *crossing, f"  {verdict}"])

    def _repr_html_(self) -> str:
        return html_table(self.title, self._rows()) + (f"<p>{escape(self.crossing)}</p>" if self.crossing else "")

    def _rows(self) -> list[list[str]]:
        cells = [[interval_text(of[name].as_json()) for of in (self.metrics, self.majority)] for name in self.metrics]
        names = map(metric_title, self.metrics)
        return [["metric", "this head", "majority"], *([name, *row] for name, row in zip(names, cells, strict=True))]


def cross_validate(
    store: StoreLike,
    task: str,
    head: str,
    *,
    blocks: Sequence[str] = (),
    folds: int = 5,
    **options: Any,
) -> CrossValidation:
    """Score each image with a head that was fitted without it; nothing is written.

    The train and validation parts of the split are dealt to folds, groups whole and classes evenly; the test part is
    left alone.

    Parameters
    ----------
    store, task, head, blocks
        As of `run`.
    folds : int
        From 2 up.
    **options
        As of `run`, but for those that mean nothing here: refit, calibration, preset and out are refused.

    Returns
    -------
    CrossValidation

    Raises
    ------
    AffectoryError
        A name or an option is unknown or means nothing here, or there are fewer images or groups than folds.
    """
    from classify.data.rows import RowMatrix
    from classify.evaluation.metrics import metrics

    for name in _RUNS_ONLY:
        if name in options:
            raise ConfigError(f"{name} is given, and a cross-validation leaves no run for it to act on; leave it out")
    if not isinstance(folds, int) or folds < 2:
        raise ConfigError(f"folds is {folds}; an image can only be predicted from others with at least 2")
    config = _config(store, task, head, blocks, options)
    layout = lay_out(config, store if isinstance(store, Store) else None)
    unfitted_head(config, layout)  # options are checked before anything is fitted
    data, target = layout.data, layout.data.task
    part, kind = joined(data.parts[name] for name in ("train", "validation") if name in data.parts), kind_of(target)
    refuse_trained(layout.store, find_trained(layout.store, layout.blocks), {"cross-validated": part.rows})
    y, groups = part.y, part.groups
    fold_of = deal_strata(kind.strata(y), groups=groups, n_folds=folds, seed=config.seed)
    matrix, scores = RowMatrix(layout.store, layout.blocks, part.rows), kind.blank(len(y))
    for train, held_out in cuts(fold_of):
        unfitted = task_head(head, target, y[train], config.settings, seed=config.seed, shape=layout.map_shape)
        fitted = unfitted.fit_in_groups(matrix[train], y[train], None if groups is None else groups[train])
        scores[held_out] = head_scores(fitted, target, matrix[held_out])
    resampling: dict[str, Any] = {"groups": groups, "n_resamples": config.resamples, "seed": config.seed}
    spread = Spread.of(target, y, scores, **resampling)
    majority = Spread.of(target, y, constant_scores(target, y, len(y)), **resampling)
    enough = spread.n_units >= LEAST_UNITS
    return CrossValidation(
        task=target,
        head=head,
        metrics=intervals(spread, part="training and validation"),
        majority=intervals(majority, part="training and validation"),
        by_fold=[metrics(target, y[rows], scores[rows]) for _, rows in cuts(fold_of)],
        ids=part.ids,
        folds=fold_of,
        scores=scores,
        crossing=data.crossing.words_on_folds() if data.crossing else "",
        verdicts=judge(target, y, spread, majority, groups, seed=config.seed) if enough else {},
    )


def open_run(folder: str | Path) -> Run:
    """Open a run that lies on disk."""
    return read_run(Path(folder))


def report(
    runs: Run | str | Path | Iterable[Run | str | Path],
    path: str | Path = "report.html",
    *,
    data: str | Path | None = None,
    force: bool = False,
) -> Path:
    """Write one page about some runs, as ``classify report`` does, and return its path.

    Parameters
    ----------
    runs : Run, path-like, or iterable of these
        Runs, or folders that hold some.
    data : path-like, optional
        Folder of the pictures. None: ``data/CORPUS``.
    force : bool
        Whether a page that is there may be replaced.
    """
    from classify.pages.page import write_report_page

    several = [runs] if isinstance(runs, Run | str | Path) else list(runs)
    found = [one for each in several for one in ([each] if isinstance(each, Run) else find_runs([Path(each)]))]
    if not found:
        raise ConfigError("no run is given; a page is about one run at least")
    write_report_page(found, Path(path), data=None if data is None else Path(data), force=force)
    return Path(path)


def load(place: Run | str | Path, *, device: str = "auto", allow_download: bool = False) -> Predictor:
    """Open a run or a bundle, and load its encoders: what comes back predicts image files.

    ``next(load("polarity.zip")(["holiday.jpg"])).calibrated``

    Weights that are not on this machine are fetched from a model hub only with *allow_download*.
    """
    from classify.inference.bundle import open_model
    from classify.inference.model import run_model
    from classify.inference.predictor import Predictor

    model = run_model(place) if isinstance(place, Run) else open_model(Path(place))
    return Predictor(model, device=device, allow_download=allow_download)
