"""The commands that train heads or score fitted ones: run, evaluate, search, sweep, presets, reproduce."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from classify.cli import options
from classify.console import note, progress_bar, say
from classify.errors import ConfigError
from features_store.console import key_values


def run(
    store: options.OptionalStore = None,
    *,
    task: options.OptionalTask = None,
    blocks: options.Blocks = None,
    split: options.Split = None,
    views: options.Views = None,
    allow_split_groups: options.AllowSplitGroups = False,
    head: options.OptionalHead = None,
    settings: options.Settings = None,
    preset: options.Preset = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file with the same keys; options override it.", rich_help_panel="Head")
    ] = None,
    seed: options.OptionalSeed = None,
    quick: options.Quick = False,
    time_budget: Annotated[
        str | None,
        typer.Option(help="Stop training in time, like 9h, and keep its state.", rich_help_panel="Training"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume from the checkpoint; the result is bit-identical to an uninterrupted run.",
            rich_help_panel="Training",
        ),
    ] = False,
    out: options.Out = None,
    force: options.Force = False,
) -> None:
    """Fit one head on one task, score it beside its baselines, and write a run folder: runs/CORPUS/TASK/HEAD.

    If the time budget ends before training does, the exit code is 3, and only the state of training is written.
    """
    from classify.pages.tables import run_text
    from classify.runs.layout import quick as cut_down
    from classify.runs.time_budget import interruption
    from classify.studies.cross_corpus import run_config

    given: dict[str, Any] = {
        "store": store, "task": task, "head": head, "blocks": blocks, "split": split, "seed": seed, "out": out,
    }  # fmt: skip
    given |= {"set": settings, "preset": preset, "views": views, "allow_split_groups": allow_split_groups}
    chosen = options.run_config(config, **given)
    chosen = cut_down(chosen) if quick else chosen
    if config:
        note(f"{config}: the run goes to {chosen.folder}")
    guard = interruption(chosen.folder, time_budget, resume=resume, force=force)
    with options.unfinished_exits():
        done = run_config(chosen, force=force, notify=note, interruption=guard)
    say(run_text(done))


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of the run whose head is scored.", show_default=False)],
    store: Annotated[str, typer.Argument(help="A store of other images with the same blocks.", show_default=False)],
    *,
    task: Annotated[
        str | None, typer.Option(help="A task of that store. [default: the run's]", rich_help_panel="Data")
    ] = None,
    class_map: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="THEIRS=OURS",
            help="The class of the head for a class of the store, or none; repeatable.",
            rich_help_panel="Data",
        ),
    ] = None,
    out: options.Out = None,
    force: options.Force = False,
) -> None:
    """Score a fitted head, unchanged, on another corpus; the run lies beside the runs of that store."""
    from classify.pages.tables import run_text
    from classify.studies.cross_corpus import cross_corpus_test

    pairs = {theirs: ours.strip() for theirs, ours in key_values("--map", class_map or (), "joy=positive").items()}
    if unnamed := [theirs for theirs, ours in pairs.items() if not ours]:
        raise ConfigError(f"--map {unnamed[0]}= names no class of the head; write for example --map joy=positive")
    say(run_text(cross_corpus_test(run, store, task=task, class_map=pairs, out=out, force=force)))


def search(
    store: options.Store,
    *,
    task: options.Task,
    blocks: options.Blocks = None,
    split: options.Split = None,
    allow_split_groups: options.AllowSplitGroups = False,
    head: options.Head = "mlp",
    settings: options.Settings = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials of the whole search.", rich_help_panel="Training")] = 50,
    seed: options.OptionalSeed = None,
    out: options.Out = None,
    force: options.Force = False,
) -> None:
    """Search for a head's options on the validation part; score the best on the test part, once, at the end.

    The journal and the best run lie in runs/CORPUS/TASK/HEAD-search.
    """
    from classify.pages.tables import run_text
    from classify.studies.search import search as run_search

    given: dict[str, Any] = {
        "store": store, "task": task, "head": head, "blocks": blocks, "split": split, "seed": seed, "out": out,
    }  # fmt: skip
    config = options.run_config(**given, set=settings, allow_split_groups=allow_split_groups)
    if not out:
        config = replace(config, out=str(config.beside(f"{head}-search")))
    with options.unfinished_exits():
        done = run_search(config, trials=trials, force=force, notify=note, progress=sys.stderr.isatty())
    say(run_text(done))


def sweep(
    config: Annotated[Path, typer.Argument(help="A TOML file with [[grid]] tables.", show_default=False)],
    *,
    allow_split_groups: options.AllowSplitGroups = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs. [default: runs/CORPUS/sweep]", rich_help_panel="Output")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the runs, and which exist already.", rich_help_panel="Output"),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Do every run of a grid that does not exist yet; repeat the command to resume an interrupted sweep."""
    from classify.pages.tables import sweep_records, sweep_text
    from classify.studies import sweep as sweeping

    cells = sweeping.read_sweep(config, out=out, allow_split_groups=allow_split_groups)
    for folder in dict.fromkeys(cell.config.folder.parent.parent for cell in cells if not cell.problem):
        note(f"{config}: the runs go to {folder}")
    if not dry_run:
        with progress_bar("runs") as progress:
            sweeping.sweep(cells, notify=note, progress=progress)
    say(json.dumps(sweep_records(cells), indent=2, ensure_ascii=False) if as_json else sweep_text(cells))


def presets(
    name: Annotated[str | None, typer.Argument(help="One preset, whole.", show_default=False)] = None,
    *,
    as_json: options.Json = False,
) -> None:
    """List the experiments of published systems: corpus, head, and the paper's result."""
    from classify import preset as table
    from classify.console import columns

    if as_json or name:
        chosen = [table.find_preset(name)] if name else list(table.presets().values())
        records = [one.record() for one in chosen]
        say(json.dumps(records if as_json else records[0], indent=2, ensure_ascii=False))
        return
    for system, members in table.systems().items():
        say(f"{system}: {table.citation(system)}")
        rows = [[one.name, f"{one.corpus} · {one.run['task']}", one.run["head"], one.result] for one in members]
        say("\n".join(columns(rows)))


def reproduce(
    system: options.System,
    *,
    stores: Annotated[
        list[str] | None,
        typer.Option(
            "--store", help="A store of its corpus; repeatable. [default: features/CORPUS]", rich_help_panel="Data"
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[CORPUS=]PATH",
            help="Pictures of a corpus, as of `extract run`; repeatable.",
            rich_help_panel="Data",
        ),
    ] = None,
    do: Annotated[
        bool, typer.Option("--run", help="Do what is missing: fit networks, extract, test on other corpora.")
    ] = False,
    only: Annotated[str | None, typer.Option(metavar="A,B,...", help="Only these experiments.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="auto|random:SEED", help="Of `extract run`.", rich_help_panel=options.ENCODERS),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="auto|cpu|cuda", help="Of `extract run`.", rich_help_panel=options.ENCODERS)
    ] = None,
    allow_split_groups: options.AllowSplitGroups = False,
    quick: options.Quick = False,
    out: Annotated[Path | None, options.written("Also write the table as JSON to this file.")] = None,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Run a system's experiments, and print the paper's numbers beside ours, and in what they differ.

    With --run it does whatever is missing, printing each command first; repeated, it resumes.
    """
    from classify.json_file import check_new, write_json
    from classify.studies import reproduction

    if out:
        check_new(out, force=force)
    given: dict[str, Any] = {"is_quick": quick, "force": force, "allow_split_groups": allow_split_groups}
    given |= {"data": data or [], "do": do, "only": options.names(only)}
    pairs = {"--weights": weights, "--device": device}
    given["extract_options"] = [word for name, value in pairs.items() if value for word in (name, value)]
    rows = reproduction.reproduce(system, stores or [], **given, notify=note)
    records = [row.as_json() for row in rows]
    if out:
        write_json(out, records, force=force)
    say(json.dumps(records, indent=2, ensure_ascii=False) if as_json else reproduction.table(rows))
    if do:
        _draw(system, rows)


def _draw(system: str, rows: Any) -> None:
    """Write the figures that the runs of a system allow, and that are not there yet."""
    from classify.errors import RunError
    from classify.figures.svg import PALETTE
    from classify.pages.figure import figure
    from classify.pages.page import write_text
    from classify.runs.findings_json import EXPLANATIONS
    from classify.studies.reproduction import run_folders

    for task, folders in run_folders(rows).items():
        explained = [folder for folder in folders if (folder / EXPLANATIONS).is_dir()]
        for kind in ("curves", "confusion", "plane", "explanations"):
            path = folders[0].parent / f"{system}-{task}-{kind}.svg"
            of = explained if kind == "explanations" else folders
            if path.exists() or not of:
                continue
            try:
                text = figure(kind, of[: len(PALETTE)])
            except RunError:  # no run of a network, or no such task
                continue
            write_text(path, text, force=False)
            note(f"wrote {path}")
