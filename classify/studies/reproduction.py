"""The experiments of a published system beside the numbers of its paper, and in what they differ from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from classify.config import RunConfig, load_config
from classify.errors import ConfigError, RunError
from classify.preset import Preset, find_preset, systems
from classify.runs.folder import CONFIG, Run, read_run
from classify.runs.identity import differing_aspects, run_identity
from classify.runs.layout import Layout, lay_out, quick
from classify.runs.report_json import REPORT, UNDEFINED, passport_weights
from classify.runs.train import run as run_experiment
from features_store import Store, open_store
from features_store import passport as passports
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
        ``value``, ``low`` and ``high``; None where it was not run.
    difference : float or None
        Ours less the paper's.
    differs : tuple of str
        In what the run differs from the paper's experiment.
    not_run : str
        Why there is no run; empty where there is one.
    run : str
        Its folder.
    crossing : str
        The groups that the split puts into several parts, and the metric without them.
    also : mapping of str to mapping
        Further numbers of the paper by metric, with ours: ``paper`` and ``ours``.
    note : str
        What the paper leaves open or contradicts, and what was assumed.
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
    also: Mapping[str, Mapping[str, float | None]] | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """``as published``, ``differs``, or ``not comparable``: not run, quick, or on another corpus."""
        if self.not_run or self.difference is None or any(text.startswith(_NOT_COMPARABLE) for text in self.differs):
            return "not comparable"
        return "differs" if self.differs else "as published"

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = {**asdict(self), "differs": list(self.differs), "also": dict(self.also or {})}
        return {**values, "verdict": self.verdict, "reproduction": self.verdict == "as published"}


_NOT_COMPARABLE = ("corpus: ", "only ")


def reproduce(
    system: str,
    stores: Sequence[str],
    *,
    is_quick: bool = False,
    force: bool = False,
    allow_split_groups: bool = False,
    notify: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Run every experiment of a system that the stores allow, and compare it with its paper.

    A run that lies in its place is taken as it is if it was made of the same data and settings.

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
            given = {"store": fit, "preset": preset.name, "allow_split_groups": allow_split_groups or None}
            config = load_config(None, given)
            done = _run(quick(config) if is_quick else config, force=force, notify=notify)
            rows.append(_row(preset, done, opened[fit]))
        except AffectoryError as error:
            rows.append(_not_run(preset, str(error)))
        notify(f"{preset.name}: {rows[-1].not_run or 'done'}")
    return rows


def _unfit(preset: Preset, store: Store) -> str:
    """Return why an experiment can't be run on a store; empty if it can."""
    missing = [name for name in preset.run["blocks"] if name not in store.blocks]
    if preset.run["task"] not in store.labels:
        return f"no task {preset.run['task']!r}"
    if missing:
        return f"no block {', '.join(missing)}"
    return "" if store.corpus.get("name") == preset.corpus else f"its corpus is {store.corpus.get('name')!r}"


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
    done, report = vars(replace(load_config(run.folder / CONFIG), **places)), run.report
    found = [name for name, value in vars(config).items() if done[name] != value]
    digests, before = {name: part.digest for name, part in layout.data.parts.items()}, report.part_digests
    found += [f"labels of {name}" for name in digests | before if digests.get(name) != before.get(name)]
    found += [] if report.index_digest == layout.store.index_digest else ["images of the index"]
    for name in layout.blocks:
        if passports.differences(report.passports.get(name, {}), layout.store.block(name).passport):
            found.append(f"passport of {name}")
    return found


def _not_run(preset: Preset, reason: str) -> Row:
    paper = preset.paper
    missing = (None, None, (), reason)
    described: dict[str, Any] = {"also": _also(preset, None), "note": paper.get("note", "")}
    return Row(preset.name, paper["metric"], paper["part"], paper.get("value"), *missing, **described)


def _row(preset: Preset, run: Run, store: Store) -> Row:
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
        also=_also(preset, run),
        note=paper.get("note", ""),
    )


def _also(preset: Preset, run: Run | None) -> dict[str, dict[str, float | None]]:
    """Return the further numbers of a paper: other metrics, the metric on other parts, and references without ours."""
    paper, metrics = preset.paper, {} if run is None else run.report.metrics
    found = {}
    for name, printed in paper.get("also", {}).items():
        part = "validation" if name == "development" else name  # the part that the development images were chosen on
        of_part, metric = (
            (metrics.get(part, {}), paper["metric"]) if part in metrics else (metrics.get(paper["part"], {}), name)
        )
        found[name] = {"paper": printed, "ours": of_part.get(_METRIC_NAMES.get(metric, metric), UNDEFINED)["value"]}
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


def differences(preset: Preset, run: Run, store: Store) -> list[str]:
    """List in what a run differs from the paper's experiment, each as ``what: ours, the paper's: theirs``.

    Compared are the corpus and the options of its reader, the images of each part, the blocks with their widths, taps,
    views and precision, the weights, every field of a passport that the preset states, and the settings.
    """
    report, paper = run.report, preset.paper
    reader = report.reader or {}
    found = [] if reader.get("name") == preset.corpus else [_differs("corpus", reader.get("name"), preset.corpus)]
    for name, value in paper.get("options", {}).items():
        ours = (reader.get("options") or {}).get(name)
        found += [] if ours == value else [_differs(f"option {name} of the corpus", ours, value)]
    counts = {part: report.n_images(part) for part in ("train", "validation", "test")}
    counts["development"] = counts["train"] + counts["validation"]
    for part, n in paper.get("images", {}).items():
        found += [] if counts[part] == n else [f"split: {counts[part]:,} {part} images, the paper's: {n:,}"]
    if list(report.blocks) != list(preset.widths):
        found.append(_differs("blocks", ", ".join(report.blocks), ", ".join(preset.widths)))
    for name in report.blocks:
        if name in preset.widths:
            found += _block_differences(name, preset, store, load_config(run.folder / CONFIG).views)
    if report.format_version < 2:
        found.append("vectors: not recorded by a report of version 0.1; run it again with --force")
    return found + _settings(preset, run)


def _differs(what: str, ours: Any, theirs: Any) -> str:
    return f"{what}: {ours}, the paper's: {theirs}"


def _block_differences(name: str, preset: Preset, store: Store, trained_on: str) -> list[str]:
    """Compare how a block was made with what the preset and its name say; *trained_on* are the run's views."""
    passport, paper = store.block(name).passport, preset.paper
    stated = dict(paper.get("passports", {}).get(name, {}))
    encoder, _, tap = name.rpartition(".")
    views = passport.get("views") if trained_on == "all" else None
    made_by = passport.get("encoder")
    compared = {
        "width": (list(store.block(name).item_shape), list(preset.widths[name])),
        "encoder": (made_by, stated.pop("encoder", f"{encoder}_{tap}" if made_by == f"{encoder}_{tap}" else encoder)),
        "tap": (passport.get("tap"), stated.pop("tap", tap)),
        "views": (
            (views["n"], stated.pop("views", 1))
            if isinstance(views, Mapping) and "policy" not in paper
            else (views["policy"] if isinstance(views, Mapping) else "none", paper.get("policy", "none"))
        ),
        "precision": (passport.get("autocast") or "float32", stated.pop("precision", "float32")),
        **{field: (_field(passport, field), value) for field, value in stated.items()},
    }
    found = [_differs(f"{what} of {name}", *pair) for what, pair in compared.items() if pair[0] != pair[1]]
    source, published = passport_weights(passport).get("source", "unknown"), paper.get("weights", {}).get(name)
    if published is not None and source != published and not {"weights.sha256", "weights.source"} & stated.keys():
        found.append(_differs(f"weights of {name}", source, f"{published}; their identity is not known"))
    return found


def _field(passport: Mapping[str, Any], path: str) -> Any:
    """Return a field of a passport by its dotted path; "absent" where there is none."""
    value: Any = passport
    for name in path.split("."):
        value = value.get(name, "absent") if isinstance(value, Mapping) else "absent"
    return value


def _settings(preset: Preset, run: Run) -> list[str]:
    """Compare the configuration of the run with the preset's."""
    done = load_config(run.folder / CONFIG)
    published = load_config(None, {"store": done.store, "preset": find_preset(preset.name).name})
    found = [f"only {done.limit} images of each part (--quick)"] if done.limit else []
    for name in ("task", "split", "head", "blocks", "refit", "merge", "calibration", "on_failed", "views"):
        ours, theirs = getattr(done, name), getattr(published, name)
        found += [] if ours == theirs else [f"{name}: {ours}, the preset's: {theirs}"]
    for name in sorted(set(done.settings) | set(published.settings)):
        ours, theirs = (dict(one.settings).get(name, "not set") for one in (done, published))
        found += [] if ours == theirs else [f"{name}: {ours}, the preset's: {theirs}"]
    return found


def table(rows: Sequence[Row]) -> str:
    """Lay rows out as text: the paper's numbers, ours with intervals, differences, and the verdict with reasons."""
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
        for name, pair in (row.also or {}).items():
            number = "-" if pair["ours"] is None else f"{pair['ours']:.3f}"
            lines.append(f"  {name:<49} {pair['paper']:>7.3f}  {number}")
        lines += [f"    note: {row.note}"] if row.note else []
        lines += [f"    {row.crossing}"] if row.crossing else []
        if row.not_run:
            lines.append(f"    not comparable; not run: {row.not_run}")
        elif row.differs:
            lines += [
                f"    {row.verdict}{' in' * (row.verdict == 'differs')}:",
                *(f"      {text}" for text in row.differs),
            ]
        else:
            lines.append(f"    {row.verdict}: corpus, split, blocks, weights and settings are the paper's")
    return "\n".join(lines)
