"""The commands about published systems, other corpora and searches; `__main__` puts them on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from classify.console import note, say
from classify.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Quick = Annotated[bool, typer.Option("--quick", help="Few images and epochs: shows that it runs, no result.")]
AllowSplitGroups = Annotated[
    bool, typer.Option("--allow-split-groups", help="Take a split that parts groups although it was not published so.")
]
NOT_FINISHED = 3
"""Exit code of a run that its time budget stopped: neither done nor failed, to be gone on with."""


def presets(
    name: Annotated[str | None, typer.Argument(help="One preset, whole.", show_default=False)] = None,
    *,
    as_json: Json = False,
) -> None:
    """List the experiments of published systems: corpus, head, and the paper's result."""
    from classify import preset as table

    chosen = [table.find_preset(name)] if name else list(table.presets().values())
    if as_json or name:
        records = [one.record() for one in chosen]
        say(json.dumps(records if as_json else records[0], indent=2, ensure_ascii=False))
        return
    for system, members in table.systems().items():
        say(f"{system}: {members[0].paper['citation']}")
        for one in members:
            say(f"  {one.name:<27} {one.corpus + ' · ' + one.run['task']:<27} {one.run['head']:<7} {one.result}")


def cross_test(
    run: Annotated[Path, typer.Argument(help="Folder of the run whose head is tested.", show_default=False)],
    store: Annotated[str, typer.Argument(help="A store of other images with the same blocks.", show_default=False)],
    *,
    task: Annotated[str | None, typer.Option(help="A task of that store. [default: the run's]")] = None,
    class_map: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="THEIRS=OURS", help="What a class of the store is to the head, or none."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Run folder. [default: beside the runs of that store]")] = None,
    force: Force = False,
) -> None:
    """Score a fitted head, as it is, on another corpus."""
    from classify.pages.plots import write_plots
    from classify.pages.summary import run_summary
    from classify.studies.cross_corpus import TransferConfig, transfer

    pairs: dict[str, str] = {}
    for text in class_map or ():
        theirs, equals, ours = text.partition("=")
        if not equals or not theirs.strip() or not ours.strip():
            message = f"--map {text!r} isn't THEIRS=OURS; write for example --map joy=positive"
            raise ConfigError(message)
        pairs[theirs.strip()] = ours.strip()
    say(run_summary(write_plots(transfer(TransferConfig(run, store, task, pairs, out=out), force=force))))


def reproduce(
    system: Annotated[str, typer.Argument(help="A publication; `classify presets` names them.", show_default=False)],
    *,
    stores: Annotated[list[str], typer.Option("--store", help="A store with its corpus; repeatable.")],
    quick: Quick = False,
    allow_split_groups: AllowSplitGroups = False,
    out: Annotated[Path | None, typer.Option(help="Also write the table as JSON to this file.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Run a system's experiments, and print the paper's numbers beside ours, and in what they differ."""
    from classify.json_file import check_new, write_json
    from classify.pages.plots import write_plots
    from classify.runs.folder import read_run
    from classify.studies.reproduction import reproduce as run_all
    from classify.studies.reproduction import table

    if out:
        check_new(out, force=force)
    given = {"is_quick": quick, "force": force, "allow_split_groups": allow_split_groups}
    rows = run_all(system, stores, **given, notify=note)
    for folder in {row.run for row in rows if row.run}:
        write_plots(read_run(Path(folder)))
    records = [row.as_json() for row in rows]
    if out:
        write_json(out, records, force=force)
    say(json.dumps(records, indent=2, ensure_ascii=False) if as_json else table(rows))


def search(  # noqa: PLR0913 - each is an option of the command line
    store: Annotated[str, typer.Argument(help="A dump, or a folder of dumps.", show_default=False)],
    *,
    task: Annotated[str, typer.Option(help="A task of the store.", show_default=False)],
    head: Annotated[str, typer.Option(help="A head; see `classify heads`.")] = "mlp",
    trials: Annotated[int, typer.Option(min=1, help="Trials of the whole search.")] = 50,
    blocks: Annotated[str | None, typer.Option(help="Blocks A,B,... [default: all of vectors]")] = None,
    split: Annotated[str | None, typer.Option(help="A split of the store. [default: default]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random. [default: 0]")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option that stays as it is; repeatable.")
    ] = None,
    allow_split_groups: AllowSplitGroups = False,
    out: Annotated[str | None, typer.Option(help="Folder. [default: runs/CORPUS/TASK/HEAD-search]")] = None,
    force: Force = False,
) -> None:
    """Search for a head's options on the validation part; score the best on the test part, once, at the end."""
    from dataclasses import replace

    from classify.config import load_config, parse_settings
    from classify.pages.plots import write_plots
    from classify.pages.summary import run_summary
    from classify.runs.time_budget import UnfinishedError
    from classify.studies.search import search as run_search

    given: dict[str, Any] = {"store": store, "task": task, "head": head, "blocks": blocks, "split": split, "seed": seed}
    given |= {"out": out, "set": parse_settings(settings) if settings else None}
    given["allow_split_groups"] = allow_split_groups or None
    config = load_config(None, given)
    if not out:
        config = replace(config, out=str(config.folder.with_name(f"{head}-search")))
    try:
        done = run_search(config, trials=trials, force=force, notify=note, progress=sys.stderr.isatty())
    except UnfinishedError as stopped:
        say(f"not finished: {stopped}", err=True)
        raise typer.Exit(NOT_FINISHED) from None
    say(run_summary(write_plots(done)))
