"""A system's experiments beside the numbers of its paper: how far off, and whether they may be compared at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from classify.config import RunConfig, dump_config, load_config
from classify.errors import ConfigError, RunError
from classify.preset import Preset, find_preset, systems
from classify.runs.folder import CONFIG, REPORT, Run, read_run
from classify.runs.identity import differing_aspects, run_identity
from classify.runs.layout import lay_out, quick
from classify.runs.report_json import UNDEFINED, passport_weights
from classify.runs.train import run as run_experiment
from features_store import Store, open_store
from features_store.errors import AffectoryError, unknown_name

__all__ = ["Row", "differences", "reproduce", "table"]


@dataclass(frozen=True)
class Row:
    """One experiment.

    Parameters
    ----------
    paper : float or None
        The printed number; None where the paper prints none.
    ours : dict or None
        ``value``, ``low`` and ``high``; None where it wasn't run.
    difference : float or None
        Ours less the paper's.
    differs : tuple of str
        In what the run isn't the paper's experiment. Empty: it is a reproduction.
    not_run : str
        Why there is no run; empty where there is one.
    run : str
        Its folder.
    crossing : str
        What crosses where the split parts groups, and the metric without it.
    """

    preset: str
    metric: str
    part: str
    paper: float | None
    ours: dict[str, float | None] | None
    difference: float | None
    differs: tuple[str, ...]
    not_run: str = ""
    run: str = ""
    crossing: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "differs": list(self.differs), "reproduction": not self.differs and not self.not_run}


def reproduce(
    system: str,
    stores: Sequence[str],
    *,
    is_quick: bool = False,
    force: bool = False,
    allow_split_groups: bool = False,
    notify: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Run every experiment of a system that the stores allow, and put it beside its paper.

    A run that lies in its place is taken as it is if it was made by the same configuration.

    Raises ConfigError.
    """
    if system not in systems():
        raise ConfigError(unknown_name("system", system, systems()))
    opened = {path: open_store(Path(path).expanduser()) for path in stores}
    rows = []
    for preset in systems()[system]:
        reasons = {path: _unfit(preset, store) for path, store in opened.items()}
        fit = next((path for path, reason in reasons.items() if not reason), None)
        if fit is None:
            rows.append(_not_run(preset, "; ".join(f"{path}: {reason}" for path, reason in reasons.items())))
            continue
        try:
            asked = {"store": fit, "preset": preset.name, "allow_split_groups": allow_split_groups or None}
            config = load_config(None, asked)
            done = _run(quick(config) if is_quick else config, force=force, notify=notify)
            rows.append(_row(preset, done))
        except AffectoryError as error:
            rows.append(_not_run(preset, str(error)))
        notify(f"{preset.name}: {rows[-1].not_run or 'done'}")
    return rows


def _unfit(preset: Preset, store: Store) -> str:
    """Say why an experiment can't be run on a store; empty if it can."""
    missing = [name for name in preset.run["blocks"] if name not in store.blocks]
    if preset.run["task"] not in store.labels:
        return f"no task {preset.run['task']!r}"
    if missing:
        return f"no block {', '.join(missing)}"
    return "" if store.corpus.get("name") == preset.corpus else f"its corpus is {store.corpus.get('name')!r}"


def _run(config: RunConfig, *, force: bool, notify: Callable[[str], None]) -> Run:
    if not force and (config.folder / REPORT).is_file():
        run, layout = read_run(config.folder), lay_out(config)
        now = run_identity(config, layout.store, layout.blocks, layout.data)
        different = (
            differing_aspects(run.report.identity, now)
            if len(run.report.identity) > 1  # a report of an earlier version knows less
            else _before(run, config)
        )
        if not different:
            return run
        message = f"{config.folder} was made of something else (different: {', '.join(different[:5])}); replace it "
        raise RunError(message + "with --force")
    return run_experiment(config, force=force, notify=notify)


def _before(run: Run, config: RunConfig) -> list[str]:
    """Compare a run of an earlier version, of which only the configuration is known."""
    same = dump_config(load_config(run.folder / CONFIG)) == dump_config(config)
    return [] if same else ["its configuration"]


def _not_run(preset: Preset, reason: str) -> Row:
    paper = preset.paper
    return Row(preset.name, paper["metric"], paper["part"], paper.get("value"), None, None, (), reason)


def _row(preset: Preset, run: Run) -> Row:
    paper = preset.paper
    metric, part, value = paper["metric"], paper["part"], paper.get("value")
    ours = run.report.metrics.get(part, {}).get(metric)
    if ours is None:
        return _not_run(preset, f"the run has no {metric} on a {part} part; the split lacks that part")
    gap = None if value is None or ours["value"] is None else round(ours["value"] - value, 6)
    return Row(
        preset.name,
        metric,
        part,
        value,
        ours,
        gap,
        tuple(differences(preset, run)),
        run=str(run.folder),
        crossing=_crossing(run, part, metric),
    )


def _crossing(run: Run, part: str, metric: str) -> str:
    found = run.report.crossing
    if found is None:
        return ""
    told = f"the split parts {found['n_groups']:,} groups of {found['n_images']:,} images"
    clean = found["parts"].get(part)
    if clean is None:
        return f"{told}; no {part} image has a mate in training"
    value = clean["metrics"].get(metric, UNDEFINED)["value"]
    shown = "undefined" if value is None else f"{value:.3f}"
    return f"{told}; {metric} without {clean['n_left_out']} that cross: {shown}"


def differences(preset: Preset, run: Run) -> list[str]:
    """Say in what a run isn't the paper's experiment; empty if nothing is known to differ.

    Compared are the corpus by its reader, the images of each part by number, the split's name, the blocks and the
    source of their weights, and the configuration against the preset's.
    """
    report, paper = run.report, preset.paper
    found = []
    corpus = (report.reader or {}).get("name")
    if corpus != preset.corpus:
        found.append(f"corpus: {corpus}, the paper's: {preset.corpus}")
    counts = {part: report.n_images(part) for part in ("train", "validation", "test")}
    counts["development"] = counts["train"] + counts["validation"]
    for part, n in paper.get("images", {}).items():
        if counts[part] != n:
            found.append(f"split: {counts[part]:,} {part} images, the paper's: {n:,}")
    found += _weights(report, paper.get("weights", {}))
    return found + _settings(preset, run)


def _weights(report: Any, published: dict[str, str]) -> list[str]:
    found = []
    absent = [name for name in published if name not in report.blocks]
    added = [name for name in report.blocks if name not in published]
    if absent or added:
        here, there = ", ".join(added) or "nothing else", ", ".join(absent) or "nothing else"
        found.append(f"blocks: {here}, the paper's: {there}")
    for name in report.blocks:
        source = passport_weights(report.passports.get(name, {})).get("source", "unknown")
        if name in published and source != published[name]:
            found.append(f"weights of {name}: {source}, the paper's: {published[name]}")
    return found


def _settings(preset: Preset, run: Run) -> list[str]:
    """Compare what the run did with what the preset says."""
    done = load_config(run.folder / CONFIG)
    asked = load_config(None, {"store": done.store, "preset": find_preset(preset.name).name})
    found = [f"only {done.limit} images of each part (--quick)"] if done.limit else []
    for name in ("task", "split", "head", "blocks", "refit", "merge"):
        if getattr(done, name) != getattr(asked, name):
            found.append(f"{name}: {getattr(done, name)}, the preset's: {getattr(asked, name)}")
    for name in sorted(set(done.settings) | set(asked.settings)):
        ours, theirs = (dict(one.settings).get(name, "not set") for one in (done, asked))
        if ours != theirs:
            found.append(f"{name}: {ours}, the preset's: {theirs}")
    return found


def table(rows: Sequence[Row]) -> str:
    """Lay rows out as text: paper, ours with its interval, difference, and what the difference may mean."""
    lines = [f"{'experiment':<28} {'metric':<22} {'paper':>7}  {'ours (95%)':<26} {'difference':>10}"]
    for row in rows:
        paper = "-" if row.paper is None else f"{row.paper:.3f}"
        if row.ours is None or row.ours["value"] is None:
            ours, gap = "not run" if row.not_run else "undefined", "-"
        else:
            low, high = (row.ours[end] for end in ("low", "high"))
            ends = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
            ours, gap = f"{row.ours['value']:.3f}{ends}", "-" if row.difference is None else f"{row.difference:+.3f}"
        lines.append(f"{row.preset:<28} {row.metric + ', ' + row.part:<22} {paper:>7}  {ours:<26} {gap:>10}")
        if row.crossing:
            lines.append(f"    {row.crossing}")
        if row.not_run:
            lines.append(f"    not run: {row.not_run}")
        elif row.differs:
            lines += ["    not a reproduction; it differs in", *(f"      {text}" for text in row.differs)]
        else:
            lines.append("    a reproduction: corpus, split, blocks, weights and settings are the paper's")
    return "\n".join(lines)
