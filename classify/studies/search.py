"""Search for a head's options with Optuna: chosen on validation images; the test part is read once, at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.config import RunConfig
from classify.errors import ConfigError, HeadError, RunError
from classify.evaluation.metrics import greater_is_better, metrics, primary_metric
from classify.heads import HEADS, head_class
from classify.json_file import write_json
from classify.runs.folder import Run, check_free
from classify.runs.identity import digest_of, run_identity
from classify.runs.layout import Layout, lay_out, unfitted_head
from classify.runs.time_budget import UnfinishedError
from classify.runs.train import head_scores
from classify.runs.train import run as run_experiment

if TYPE_CHECKING:
    import optuna

__all__ = ["BEST", "JOURNAL", "TRIALS", "search"]

JOURNAL, TRIALS, BEST = "journal.log", "trials.json", "best"


def search(
    config: RunConfig,
    *,
    trials: int,
    force: bool = False,
    notify: Callable[[str], None] = lambda line: None,
    progress: bool = False,
) -> Run:
    """Try options of a head, fit the best once more, and score it.

    A trial is fitted on the training part and scored on the validation part by the task's primary metric; no trial
    reads a test image. Trials are drawn by the tree-structured Parzen estimator (Bergstra et al. 2011). They are kept
    as they are done, in ``FOLDER/journal.log``: a search that was interrupted goes on where it stopped.

    Raises ConfigError, RunError, UnfinishedError.
    """
    space = _space(config)
    folder = config.folder
    if (folder / BEST).exists() and not force:
        message = (
            f"the search in {folder} is finished, and its test part was read; more trials would choose after looking. "
            "Go on all the same with --force, or choose another place with --out"
        )
        raise RunError(message)
    layout = lay_out(config)
    if "validation" not in layout.data.parts:
        message = f"split {config.split!r} has no validation images, and a search may not choose on the test part"
        raise ConfigError(message)
    unfitted_head(config, layout)
    check_free(folder / BEST, force=force)
    study = _study(config, layout, folder / JOURNAL, notify)
    _try(study, trials, _objective(config, layout, space), notify=notify, progress=progress)
    best = _best(study)
    settings = {**config.settings, **_settings(best.params, space)}
    write_json(folder / TRIALS, _record(study, layout, space), force=True)
    n_tried = len(_scored(study))
    reached = f"{primary_metric(layout.data.task)} {best.value:.4f}"
    notify(
        f"best of {n_tried} trials: {reached} on the validation images that chose it; only the test value below is "
        "free of that choice"
    )
    best_config = replace(config, settings=settings, out=str(folder / BEST))
    return run_experiment(best_config, force=force, notify=notify, n_tried=n_tried)


def _try(
    study: optuna.Study,
    trials: int,
    score: Callable[[optuna.Trial], float],
    *,
    notify: Callable[[str], None],
    progress: bool,
) -> None:
    """Go on until so many trials have a score; those that were killed, interrupted or failed are tried anew."""
    done = len(_scored(study))
    if done:
        notify(f"{done} trials are there already")
    attempts = 2 * (trials - done)
    while len(_scored(study)) < trials:
        if attempts <= 0:
            message = (
                f"only {len(_scored(study))} of {trials} trials could be scored, the others failed; set the options "
                "that fail, or ask for fewer trials: the same command goes on"
            )
            raise UnfinishedError(message)
        wanted = min(trials - len(_scored(study)), attempts)
        attempts -= wanted
        study.optimize(score, n_trials=wanted, show_progress_bar=progress, catch=(HeadError,))


def _scored(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [one for one in study.get_trials(deepcopy=False) if one.state.name == "COMPLETE" and one.value is not None]


def _space(config: RunConfig) -> dict[str, tuple[Any, ...]]:
    whole = head_class(config.head, "single").search_space
    if not whole:
        valid = ", ".join(name for name, head in HEADS.items() if head_class(name, head.kinds[0]).search_space)
        message = f"head {config.head!r} has nothing to search; heads that have: {valid}"
        raise ConfigError(message)
    space = {name: how for name, how in whole.items() if name not in config.settings}
    if not space:
        message = f"every option of {config.head} that could be searched is set; leave one out"
        raise ConfigError(message)
    return space


def _study(config: RunConfig, layout: Layout, journal: Path, notify: Callable[[str], None]) -> optuna.Study:
    try:
        import optuna
    except ModuleNotFoundError as error:
        message = "the search needs Optuna, which is not installed; install it with: pip install 'affectory[search]'"
        raise ConfigError(message) from error
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    identity = digest_of(run_identity(config, layout.store, layout.blocks, layout.data))
    journal.parent.mkdir(parents=True, exist_ok=True)
    _mend(journal, notify)
    storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal))))
    names = {one.study_name for one in storage.get_all_studies()}
    if names - {identity}:
        message = (
            f"{journal} is of another search: its images, labels, vectors, task, head, split, seed or options differ; "
            "choose another place with --out"
        )
        raise RunError(message)
    greater = greater_is_better(primary_metric(layout.data.task))
    study = optuna.create_study(
        storage=storage,
        study_name=identity,
        load_if_exists=True,
        direction="maximize" if greater else "minimize",
    )
    # Another seed each time, or a search that goes on would begin with the trials that it has done.
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))
    return study


def _mend(journal: Path, notify: Callable[[str], None]) -> None:
    """Cut off a last line that a killed search left unfinished; anything else that can't be read is refused."""
    if not journal.exists():
        return
    lines = journal.read_bytes().splitlines(keepends=True)
    good = 0
    for line in lines:
        if not line.endswith(b"\n") or not _is_record(line):
            break
        good += 1
    if good < len(lines) - 1:
        message = f"{journal} can't be read from line {good + 1} on; choose another place with --out, or remove it"
        raise RunError(message)
    if good < len(lines):
        notify(f"the last line of {journal} is cut off; its trial is done anew")
        with journal.open("rb+") as file:
            file.truncate(sum(map(len, lines[:good])))


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _objective(
    config: RunConfig, layout: Layout, space: Mapping[str, tuple[Any, ...]]
) -> Callable[[optuna.Trial], float]:
    parts, matrices, task = layout.data.parts, layout.matrices, layout.data.task
    crossing = layout.data.crossing  # a choice by images whose group mates were fitted would be one for memory
    clean = crossing.clean["validation"] if crossing else np.ones(len(parts["validation"]), dtype=bool)
    judged = clean if clean.any() else np.ones(len(clean), dtype=bool)

    def score(trial: optuna.Trial) -> float:
        drawn = {name: _draw(trial, name, how) for name, how in space.items()}
        head = unfitted_head(replace(config, settings={**config.settings, **_settings(drawn, space)}), layout)
        x = layout.to_train_on(parts["train"].rows)
        head.fit(x, parts["train"].y, validation=(matrices["validation"], parts["validation"].y))
        said = head_scores(head, task, matrices["validation"])
        return metrics(task, parts["validation"].y[judged], said[judged])[primary_metric(task)]

    return score


def _draw(trial: optuna.Trial, name: str, how: tuple[Any, ...]) -> Any:
    kind, *between = how
    if kind == "int":
        return trial.suggest_int(name, *between)
    if kind in ("log", "uniform"):
        return trial.suggest_float(name, *between, log=kind == "log")
    return trial.suggest_categorical(name, between)


def _settings(drawn: Mapping[str, Any], space: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Turn what a trial drew into options: layers are kept as text, which a journal can hold."""
    layers = {name for name, how in space.items() if how[0] == "layers"}
    return {
        name: [int(n) for n in value.split("-")] if name in layers else value
        for name, value in drawn.items()
        if name in space
    }


def _best(study: optuna.Study) -> optuna.trial.FrozenTrial:
    if not _scored(study):
        message = f"none of the {len(study.trials)} trials could be scored; fix the options that fail, and search again"
        raise RunError(message)
    return study.best_trial


def _record(study: optuna.Study, layout: Layout, space: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    trials = [
        {"number": one.number, "value": one.value, "state": one.state.name, "options": _settings(one.params, space)}
        for one in study.trials
    ]
    metric = primary_metric(layout.data.task)
    chosen = {"n_tried": len(trials), "best": study.best_trial.number}
    return {"metric": metric, "part": "validation", **chosen, "trials": trials}
