"""Search for a head's options with Optuna: chosen on validation images; the test part is read once, at the end.

Finished trials stand in ``FOLDER/journal.log``: a line that names the search, then one line of JSON a trial. A search
that was interrupted is resumed from it.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from classify.config import RunConfig
from classify.errors import ConfigError, HeadError, RunError
from classify.evaluation.metrics import greater_is_better, metrics, primary_metric
from classify.heads import HEADS, head_class
from classify.json_file import (
    anything,
    choice,
    number,
    optional,
    parse_json,
    read_regular,
    record,
    table,
    text,
    whole,
    write_json,
)
from classify.runs.folder import Run, check_free
from classify.runs.identity import digest_of, run_identity
from classify.runs.layout import Layout, lay_out, unfitted_head
from classify.runs.time_budget import UnfinishedError
from classify.runs.train import head_scores
from classify.runs.train import run as run_experiment
from features_store.atomic import recover
from features_store.lock import FileLock

if TYPE_CHECKING:
    import optuna

JOURNAL, TRIALS, BEST = "journal.log", "trials.json", "best"
FORMAT, VERSION = "affectory-search", 1


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
    reads a test image. Trials are drawn by the tree-structured Parzen estimator (Bergstra et al. 2011).
    """
    space, folder = _space(config), config.folder
    recover(folder)
    recover(folder / BEST)
    if (folder / BEST).exists() and not force:
        raise RunError(
            f"the search in {folder} is finished, and its test part was read; more trials would choose after looking. "
            "Continue all the same with --force, or choose another place with --out"
        )
    distributions = _distributions(space)
    layout = lay_out(config)
    if "validation" not in layout.data.parts:
        raise ConfigError(
            f"split {config.split!r} has no validation images, and a search may not choose on the test part"
        )
    unfitted_head(config, layout)  # refuses options that are out of range
    check_free(folder / BEST, force=force)
    identity = digest_of(run_identity(config, layout))
    metric = primary_metric(layout.data.task)
    with closing(Journal(folder / JOURNAL, identity, notify)) as journal:
        study = _study(journal, distributions, greater=greater_is_better(metric))
        _try(
            study,
            trials,
            _objective(config, layout, space),
            distributions,
            journal,
            seed=config.seed,
            progress=progress,
        )
    best = journal.trials[study.best_trial.number]
    tried = [
        {**{key: one[key] for key in ("number", "value", "state")}, "options": _options(one["params"], space)}
        for one in journal.trials
    ]
    summary = {"metric": metric, "part": "validation", "n_tried": len(tried), "best": best["number"], "trials": tried}
    write_json(folder / TRIALS, summary, force=True)
    notify(
        f"best of {journal.n_scored} trials: {metric} {best['value']:.4f} on the validation images that chose it; only "
        "the test value below is free of that choice"
    )
    settings = {**config.settings, **_options(best["params"], space)}
    best_config = replace(config, settings=settings, out=str(folder / BEST))
    return run_experiment(best_config, force=force, notify=notify, n_tried=journal.n_scored)


def _space(config: RunConfig) -> dict[str, tuple[Any, ...]]:
    options = head_class(config.head, "single").search_space
    if not options:
        valid = ", ".join(name for name, head in HEADS.items() if head_class(name, head.kinds[0]).search_space)
        raise ConfigError(f"head {config.head!r} has nothing to search; heads that have: {valid}")
    space = {name: how for name, how in options.items() if name not in config.settings}
    if not space:
        raise ConfigError(f"every option of {config.head} that could be searched is set; leave one out")
    return space


def _distributions(space: Mapping[str, tuple[Any, ...]]) -> dict[str, optuna.distributions.BaseDistribution]:
    try:
        from optuna import distributions
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the search needs Optuna, which is not installed; install it with: pip install 'affectory[search]'"
        ) from error
    makers: dict[str, Callable[..., Any]] = {
        "int": distributions.IntDistribution,
        "uniform": distributions.FloatDistribution,
        "log": partial(distributions.FloatDistribution, log=True),
        **dict.fromkeys(("choice", "layers"), lambda *values: distributions.CategoricalDistribution(values)),
    }
    return {name: makers[how](*between) for name, (how, *between) in space.items()}


def _options(params: Mapping[str, Any], space: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Return drawn values as options of the head: layers are drawn as text, like ``256-64``."""
    return {
        name: [int(n) for n in value.split("-")] if space[name][0] == "layers" else value
        for name, value in params.items()
    }


_HEADER = record({"format": choice(FORMAT), "format_version": choice(VERSION), "identity": text})
_TRIAL = record(
    {"number": whole(), "state": choice("COMPLETE", "FAIL"), "value": optional(number()), "params": table(anything)}
)


class Journal:
    """The finished trials of one search, locked for this process; those of another search are refused."""

    def __init__(self, path: Path, identity: str, notify: Callable[[str], None]) -> None:
        self.path = path
        self.trials: list[dict[str, Any]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path)
        try:
            header, *self.trials = self._read(notify) or [{"identity": None}]
            if header["identity"] is None:
                self._write({"format": FORMAT, "format_version": VERSION, "identity": identity})
            elif header["identity"] != identity:
                raise RunError(
                    f"{path} is of another search: its images, labels, vectors, task, head, split, seed or options "
                    "differ; choose another place with --out"
                )
        except BaseException:
            self.close()
            raise
        if self.trials:
            notify(f"{self.n_scored} trials are there already")

    @property
    def n_scored(self) -> int:
        """How many trials have a score."""
        return sum(one["value"] is not None for one in self.trials)

    def append(self, trial: dict[str, Any]) -> None:
        """Keep a finished trial."""
        self._write(trial)
        self.trials.append(trial)

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()

    def _write(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self, notify: Callable[[str], None]) -> list[dict[str, Any]]:
        """Read all lines; a last one that a kill left unfinished is cut off."""
        try:
            lines = io.BytesIO(data := read_regular(self.path))
        except FileNotFoundError:
            return []
        found: list[dict[str, Any]] = []
        for at, line in enumerate(lines):
            where = f"line {at + 1}"
            try:
                whole_line = line if line.endswith(b"\n") else b""
                found.append((_TRIAL if at else _HEADER)(parse_json(whole_line, where), where))
            except RunError as error:
                if lines.tell() < len(data):
                    raise RunError(
                        f"{self.path} cannot be read from line {at + 1} on ({error}); choose another place with --out, "
                        "or remove it"
                    ) from error
                notify(f"the last line of {self.path} is cut off; its trial is done anew")
                os.truncate(self.path, len(data) - len(line))
        return found


def _study(journal: Journal, distributions: Mapping[str, Any], *, greater: bool) -> optuna.Study:
    """Return a study that knows the trials of the journal."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if greater else "minimize")
    for one in journal.trials:
        state, drawn = optuna.trial.TrialState[one["state"]], {"params": one["params"], "distributions": distributions}
        try:
            study.add_trial(optuna.trial.create_trial(state=state, value=one["value"], **drawn))
        except ValueError as error:
            raise RunError(
                f"trial {one['number']} in {journal.path} cannot be one of this search ({error}); choose another place "
                "with --out"
            ) from error
    return study


def _try(
    study: optuna.Study,
    trials: int,
    score: Callable[[Mapping[str, Any]], float],
    distributions: Mapping[str, Any],
    journal: Journal,
    *,
    seed: int,
    progress: bool,
) -> None:
    """Try until *trials* trials have a score, with at most twice as many as are missing."""
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    missing = max(trials - journal.n_scored, 0)
    with tqdm(total=missing, desc="trials", leave=False, disable=not progress) as bar:
        for _ in range(2 * missing):
            if journal.n_scored >= trials:
                break
            # A resumed search draws as one that was not.
            study.sampler = TPESampler(seed=(seed + len(journal.trials)) % 2**32)
            trial = study.ask(dict(distributions))
            try:
                value = score(trial.params)
            except HeadError:
                value = math.nan
            known = value if math.isfinite(value) else None
            state = TrialState.FAIL if known is None else TrialState.COMPLETE
            study.tell(trial, known, state)
            journal.append({"number": trial.number, "state": state.name, "value": known, "params": trial.params})
            bar.update(known is not None)
    if journal.n_scored < trials:
        raise UnfinishedError(
            f"only {journal.n_scored} of {trials} trials could be scored, the others failed; set the options that "
            "fail, or ask for fewer trials: the same command resumes the search"
        )


def _objective(
    config: RunConfig, layout: Layout, space: Mapping[str, tuple[Any, ...]]
) -> Callable[[Mapping[str, Any]], float]:
    parts, matrices, task = layout.data.parts, layout.matrices, layout.data.task
    crossing = layout.data.crossing  # images whose group mates were fitted would choose for memory
    clean = crossing.clean["validation"] if crossing else np.ones(len(parts["validation"]), dtype=bool)
    judged = clean if clean.any() else np.ones(len(clean), dtype=bool)

    def score(params: Mapping[str, Any]) -> float:
        head = unfitted_head(replace(config, settings={**config.settings, **_options(params, space)}), layout)
        x = layout.to_train_on(parts["train"].rows)
        held_out = (matrices["validation"], parts["validation"].y)
        head.fit_in_groups(x, parts["train"].y, parts["train"].groups, validation=held_out)
        y_score = head_scores(head, task, matrices["validation"])
        return metrics(task, parts["validation"].y[judged], y_score[judged])[primary_metric(task)]

    return score
