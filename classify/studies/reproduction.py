"""The experiments of a published system beside the numbers of its paper, and in what they differ from it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from classify.config import RunConfig, load_config, user_path
from classify.errors import ConfigError, RunError
from classify.preset import Preset, Statement, statements, systems
from classify.runs.findings_json import EXPLANATIONS
from classify.runs.folder import Run, read_run
from classify.runs.identity import differing_aspects, run_identity
from classify.runs.layout import Layout, lay_out, quick
from classify.runs.report_json import REPORT, UNDEFINED
from classify.runs.train import run as run_experiment
from classify.studies.cross_corpus import cross_corpus_test
from classify.studies.preparation import Command, Preparation, place_data, run_command
from classify.studies.published import Difference, differences
from features_store import Store, open_store
from features_store import passport as passports
from features_store.errors import AffectoryError, unknown_name

_NOT_COMPARABLE = ("corpus", "only")  # what makes two numbers two things


@dataclass(frozen=True)
class Row:
    """One experiment."""

    preset: str
    metric: str
    part: str
    paper: float | None  # the printed number; None where the paper prints none
    ours: dict[str, float | None] | None  # ``value``, ``low`` and ``high``; None where it was not run
    difference: float | None  # ours less the paper's
    differs: tuple[Difference, ...]  # in what the run differs from the paper's experiment
    not_run: str = ""  # why there is no run
    run: str = ""  # its folder
    crossing: str = ""  # the groups that the split puts into several parts, and the metric without them
    also: Mapping[str, Mapping[str, float | None]] | None = None  # further numbers by metric: ``paper`` and ``ours``
    note: str = ""  # what the paper leaves open or contradicts, and what was assumed
    standing: tuple[Statement, ...] = ()  # what the paper says, and is done otherwise in every run, or was assumed
    to_do: tuple[Command, ...] = ()  # the commands that were still needed

    @property
    def verdict(self) -> str:
        """``as published``, ``differs``, or ``not comparable``: not run, quick, or on another corpus."""
        if self.not_run or self.difference is None or any(one.what in _NOT_COMPARABLE for one in self.differs):
            return "not comparable"
        otherwise = any(one.state == "differs" and one.of for one in self.standing)
        return "differs" if self.differs or otherwise else "as published"

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            **vars(self),
            "also": dict(self.also or {}),
            "differs": [{**vars(one), "text": str(one)} for one in self.differs],
            "standing": [{**vars(one), "of": list(one.of), "state": one.state} for one in self.standing],
            "to_do": [list(command) for command in self.to_do],
            "verdict": self.verdict,
            "reproduction": self.verdict == "as published",
        }


def reproduce(
    system: str,
    stores: Sequence[str] = (),
    *,
    data: Sequence[str] = (),
    do: bool = False,
    only: Sequence[str] = (),
    extract_options: Sequence[str] = (),
    is_quick: bool = False,
    force: bool = False,
    allow_split_groups: bool = False,
    notify: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Run every experiment of a system that the stores allow, and compare it with its paper.

    A run that lies in its place is taken as it is if it was made of the same data and settings. Stores are the given
    ones and ``features/CORPUS``; where those lack something, *do* fits, extracts and tests on other corpora what is
    missing, from pictures in *data*, by commands that are printed first.
    """
    if system not in systems():
        raise ConfigError(unknown_name("system", system, systems()))
    for name in only:
        if name not in (members := [one.name for one in systems()[system]]):
            raise ConfigError(unknown_name(f"experiment of {system}", name, members))
    opened = {path: open_store(user_path(path)) for path in stores}
    places = {str(store.corpus.get("name")): path for path, store in reversed(opened.items())}
    how: dict[str, Any] = {"is_quick": is_quick, "options": tuple(extract_options), "stores": places}
    plan = Preparation(system, place_data(system, data), **how)
    settings: dict[str, Any] = {"force": force, "allow_split_groups": allow_split_groups, "notify": notify}
    rows = []
    for preset in systems()[system]:
        if only and preset.name not in only:
            continue
        rows.append(_reproduced(preset, opened, plan, do=do, **settings))
        notify(f"{preset.name}: {rows[-1].not_run or 'done'}")
    return rows


def _reproduced(
    preset: Preset,
    opened: Mapping[str, Store],
    plan: Preparation,
    *,
    do: bool,
    force: bool,
    allow_split_groups: bool,
    notify: Callable[[str], None],
) -> Row:
    """Prepare and run one experiment, as far as that is asked for."""
    to_do: list[Command] = []
    try:
        place, reason = _fitting_store(preset, opened)
        if place is None:
            to_do = plan.missing(preset)
            for command in to_do if do else ():
                run_command(command, notify)
            if to_do and not do:
                return _not_run(preset, reason or f"no vectors in {plan.store(preset.corpus)}", to_do)
            place = str(plan.store(preset.corpus))
        store = open_store(user_path(place))
        given = {"store": place, "preset": preset.name, "allow_split_groups": allow_split_groups or None}
        config = load_config(None, given)
        done = _run(quick(config) if plan.is_quick else config, force=force, notify=notify)
        crossed = _crossed_scores(preset, done, plan, do=do, notify=notify)
        if do:
            _explain(preset, done, plan, notify)
        return _row(preset, done, store, crossed)
    except AffectoryError as error:
        return _not_run(preset, str(error), to_do)


def _explain(preset: Preset, run: Run, plan: Preparation, notify: Callable[[str], None]) -> None:
    """Explain a run where the paper does, and where that is not done yet; a failure is told, and costs no number."""
    command = plan.explain_command(preset, run.folder)
    if command and not (run.folder / EXPLANATIONS).exists():
        try:
            run_command(command, notify)
        except RunError as error:
            notify(str(error))


def _fitting_store(preset: Preset, opened: Mapping[str, Store]) -> tuple[str | None, str]:
    """Return the first store that an experiment can be run on, or why the ones of its corpus do not serve."""
    reasons = []
    for path, store in opened.items():
        if store.corpus.get("name") != preset.corpus:
            continue
        missing = [name for name in preset.run["blocks"] if name not in store.blocks]
        if not missing and preset.run["task"] in store.labels:
            return path, ""
        reasons.append(
            f"{path}: no block {', '.join(missing)}" if missing else f"{path}: no task {preset.run['task']!r}"
        )
    return None, "; ".join(reasons)


def _crossed_scores(
    preset: Preset, run: Run, plan: Preparation, *, do: bool, notify: Callable[[str], None]
) -> dict[str, float | None]:
    """Score the head of a run on the other corpora that the paper tests it on; what cannot be tested is left out."""
    found = {}
    for name, corpus in preset.paper.get("crossed", {}).items():
        try:
            tested = _crossed(preset, run, corpus, plan, do=do, notify=notify)
        except AffectoryError as error:
            notify(f"{name}: {error}")
            continue
        if tested is not None:
            found[name] = tested.report.metrics["test"].get(preset.paper["metric"], UNDEFINED)["value"]
    return found


def _crossed(
    preset: Preset, run: Run, corpus: str, plan: Preparation, *, do: bool, notify: Callable[[str], None]
) -> Run | None:
    """Return the test of a run on another corpus; where there is none, make it if that is asked for."""
    if do and corpus in plan.data:
        for command in plan.missing(preset, run.report.blocks, corpus):
            run_command(command, notify)
    store = plan.store(corpus)
    if not store.is_dir():
        return None
    out = Path("runs", store.name, run.report.task, f"{run.folder.name}-from-{preset.corpus}")
    tested = read_run(out) if (out / REPORT).is_file() else None
    is_newer = tested is not None and tested.report.created >= run.report.created
    if tested is not None and is_newer and tested.report.index_digest == open_store(store).index_digest:
        return tested
    if not do:
        return None
    notify(f"$ classify evaluate {run.folder} {store} --out {out}")
    return cross_corpus_test(run.folder, str(store), out=str(out), force=tested is not None)


def run_folders(rows: Iterable[Row]) -> dict[str, list[Path]]:
    """Return the folders of the runs behind rows, by task."""
    found: dict[str, list[Path]] = {}
    for folder in (Path(row.run) for row in rows if row.run):
        found.setdefault(folder.parent.name, []).append(folder)
    return found


def _run(config: RunConfig, *, force: bool, notify: Callable[[str], None]) -> Run:
    """Return the run that lies in its place, if it was made of the same data and settings; else run it."""
    if force or not (config.folder / REPORT).is_file():
        return run_experiment(config, force=force, notify=notify)
    run, layout = read_run(config.folder), lay_out(config)
    if run.report.format_version > 1:
        identity = run_identity(config, layout)
        different = differing_aspects(run.report.identity, identity)
    else:
        different = _known_differences(run, config, layout)
    if different:
        raise RunError(
            f"{config.folder} was made of something else (different: {', '.join(different[:5])}); replace it with "
            "--force"
        )
    return run


def _known_differences(run: Run, config: RunConfig, layout: Layout) -> list[str]:
    """Compare what a report of 0.1 records: settings, labels, index and passports, but no vectors."""
    places: dict[str, Any] = {"store": config.store, "out": config.out, "allow_split_groups": config.allow_split_groups}
    done, report = vars(replace(run.config, **places)), run.report
    found = [name for name, value in vars(config).items() if done[name] != value]
    digests, before = {name: part.digest for name, part in layout.data.parts.items()}, report.part_digests
    found += [f"labels of {name}" for name in digests | before if digests.get(name) != before.get(name)]
    found += [] if report.index_digest == layout.store.index_digest else ["images of the index"]
    for name in layout.blocks:
        if passports.differences(report.passports.get(name, {}), layout.store.block(name).passport):
            found.append(f"passport of {name}")
    return found


def _not_run(preset: Preset, reason: str, to_do: Iterable[Command] = ()) -> Row:
    paper = preset.paper
    missing = (None, None, (), reason)
    described: dict[str, Any] = {"also": paper_numbers(preset, None), "note": paper.get("note", "")}
    described |= {"standing": _standing(preset), "to_do": tuple(to_do)}
    return Row(preset.name, paper["metric"], paper["part"], paper.get("value"), *missing, **described)


def _row(preset: Preset, run: Run, store: Store, crossed: Mapping[str, float | None]) -> Row:
    paper = preset.paper
    metric, part, value = paper["metric"], paper["part"], paper.get("value")
    found = run.report.metrics.get(part, {})
    if metric not in found:
        return _not_run(preset, f"the run has no {metric} on a {part} part; the split lacks that part")
    ours = found[metric]
    return Row(
        preset.name,
        metric,
        part,
        value,
        ours,
        None if value is None or ours["value"] is None else round(ours["value"] - value, 6),
        tuple(differences(preset, run, store)),
        run=str(run.folder),
        crossing=_crossing(run, part, metric),
        also=paper_numbers(preset, run, crossed),
        note=paper.get("note", ""),
        standing=_standing(preset),
    )


def _standing(preset: Preset) -> tuple[Statement, ...]:
    rows = statements().get(preset.system, ())
    return tuple(one for one in rows if one.state != "agrees" and one.concerns(preset.name))


def paper_numbers(
    preset: Preset, run: Run | None, crossed: Mapping[str, float | None] | None = None
) -> dict[str, dict[str, float | None]]:
    """Return the further numbers of a paper with ours: other metrics and parts, other corpora, references.

    Where the run has thresholds of its own, the metric at them stands beside, which the paper does not have.
    """
    paper, report = preset.paper, None if run is None else run.report
    metrics: Mapping[str, Any] = {} if report is None else report.metrics
    found: dict[str, dict[str, float | None]] = {}
    for name, printed in paper.get("also", {}).items():
        part = "validation" if name == "development" else name  # the part that the development images were chosen on
        of_part, metric = (
            (metrics.get(part, {}), paper["metric"]) if part in metrics else (metrics.get(paper["part"], {}), name)
        )
        ours = of_part.get(_METRIC_NAMES.get(metric, metric), UNDEFINED)["value"]
        found[name] = {"paper": printed, "ours": (crossed or {}).get(name, ours)}
    at_own = {} if report is None else (report.thresholds or {}).get("metrics", {}).get(paper["part"], {})
    if paper["metric"] in at_own:
        found["at thresholds of the validation part"] = {"paper": None, "ours": at_own[paper["metric"]]["value"]}
    return found


_METRIC_NAMES = {"loss": "log_loss"}


def _crossing(run: Run, part: str, metric: str) -> str:
    found = run.report.crossing
    if found is None:
        return ""
    counts = f"the split parts {found['n_groups']:,} groups of {found['n_images']:,} images"
    clean = found["parts"].get(part)
    if clean is None:
        return f"{counts}; no {part} image has a mate in training"
    value = clean["metrics"].get(metric, UNDEFINED)["value"]
    shown = "undefined" if value is None else f"{value:.3f}"
    return f"{counts}; {metric} without {clean['n_left_out']} that cross: {shown}"


def table(rows: Sequence[Row]) -> str:
    """Lay rows out as text: the paper's numbers, ours with intervals, differences, and the verdict with reasons."""
    lines = [f"{'experiment':<28} {'metric':<22} {'paper':>7}  {'ours (95%)':<26} {'difference':>10}"]
    for before, row in zip([None, *rows], rows, strict=False):
        lines += _lines(row, is_noted=before is not None and before.note == row.note)
    standing = {one.id: one for row in rows for one in row.standing}
    for state, title in (("differs", "done otherwise here, in every run"), ("assumed", "left open by the paper")):
        listed = [one for one in standing.values() if one.state == state]
        lines += [f"{title}:"] if listed else []
        for one in listed:
            lines.append(f"  {one.id:<4} {one.says}: here {one.here}, because {one.differs or one.assumed}")
    return "\n".join(lines)


def _lines(row: Row, *, is_noted: bool) -> list[str]:
    """Lay out one row; *is_noted*: its note stands above."""
    if row.ours is None or row.ours["value"] is None:
        ours, gap = "not run" if row.not_run else "undefined", "-"
    else:
        low, high = (row.ours[end] for end in ("low", "high"))
        ends = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
        ours, gap = f"{row.ours['value']:.3f}{ends}", "-" if row.difference is None else f"{row.difference:+.3f}"
    title = f"{row.metric}, {row.part}"
    lines = [f"{row.preset:<28} {title:<22} {_number(row.paper):>7}  {ours:<26} {gap:>10}"]
    lines += [
        f"  {name:<49} {_number(pair['paper']):>7}  {_number(pair['ours'])}" for name, pair in (row.also or {}).items()
    ]
    lines += [f"    note: {row.note}"] if row.note and not is_noted else []
    lines += [f"    {row.crossing}"] if row.crossing else []
    otherwise = [one.id for one in row.standing if one.state == "differs" and one.of]
    if row.not_run:
        lines += [f"    not comparable; not run: {row.not_run}"]
        return lines + [f"      to do: {shlex.join(command)}" for command in row.to_do]
    if not row.differs and not otherwise:
        return [*lines, f"    {row.verdict}: corpus, split, blocks, weights and settings are the paper's"]
    lines.append(f"    {row.verdict}{' in' * (row.verdict == 'differs')}:")
    for one, then in zip(row.differs, [*row.differs[1:], None], strict=True):
        last = then is None or then.change != one.change  # of those that one command changes
        lines += [f"      {one}", *([f"        changed by: {one.change}"] if one.change and last else [])]
    return [*lines, *([f"      in every run: {', '.join(otherwise)} (below)"] if otherwise else [])]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
