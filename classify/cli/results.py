"""The commands about runs that exist and stores behind them: compare, report, figure, audit, curve, seeds, ablation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classify.cli import options
from classify.console import note, progress_bar, say

if TYPE_CHECKING:
    from classify.runs.folder import Run


def compare(
    runs: options.Runs,
    *,
    paired: Annotated[
        bool, typer.Option("--paired", help="Also compare the runs of each leaderboard pairwise.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Print a leaderboard per task: each run with its intervals, and the baselines."""
    from classify.pages import leaderboard, tables
    from classify.pages.pairs import pairs
    from classify.runs.folder import find_runs

    boards = leaderboard.leaderboards(find_runs(runs))
    tests = [pairs(board) if paired else [] for board in boards]
    if as_json:
        values = leaderboard.as_json(boards)
        for value, found in zip(values, tests, strict=True):
            value.update({"pairs": found} if paired else {})
        say(json.dumps(values, indent=2, ensure_ascii=False))
        return
    for i, (board, found) in enumerate(zip(boards, tests, strict=True)):
        say("\n" * bool(i) + tables.leaderboard_text(board))
        if paired:
            say(tables.pairs_text(board, found))


def report(
    runs: options.Runs,
    *,
    data: options.Pictures = None,
    out: Annotated[Path | None, options.written("The page to write. [default: report.html]", "--out", "-o")] = None,
    empty: Annotated[
        int,
        typer.Option(
            min=0, max=1, help="Recall of a class without images in the table by class.", rich_help_panel="Output"
        ),
    ] = 0,
    force: options.Force = False,
) -> None:
    """Write one self-contained HTML page: leaderboards, evidence, errors with pictures, the data."""
    from classify.pages.page import write_report_page
    from classify.runs.folder import find_runs

    found, out = find_runs(runs), out or Path("report.html")
    write_report_page(found, out, data=data, empty=empty, force=force)
    say(f"{out}: {len(found)} run{'s' if len(found) != 1 else ''}, {out.stat().st_size / 1024:.0f} KiB")


def heads(
    head: Annotated[str | None, typer.Argument(help="One head, with its options.", show_default=False)] = None,
    *,
    as_json: options.Json = False,
) -> None:
    """List the heads and the kinds of task that each can do, or the options of one."""
    from classify.pages import tables

    if as_json:
        say(json.dumps([one for one in tables.head_records() if head in (None, one["name"])], indent=2))
    else:
        say(tables.head_card(head) if head else tables.head_list())


def audit(
    store: options.Store,
    *,
    task: options.Task,
    blocks: options.Blocks = None,
    split: options.Split = None,
    threshold: Annotated[
        float, typer.Option(help="Smallest cosine of near-duplicates.", rich_help_panel="Data")
    ] = 0.95,
    seed: options.Seed = 0,
    out: Annotated[Path | None, options.written("File. [default: runs/CORPUS/TASK/audit.json]")] = None,
    force: options.Force = False,
) -> None:
    """Look for near-duplicates across the parts of a split, and for labels that are probably wrong."""
    from classify.config import RunConfig
    from classify.json_file import check_new, write_json
    from classify.pages.tables import audit_text
    from classify.studies.audit import AUDIT
    from classify.studies.audit import audit as audit_task

    path = out or RunConfig(store, task, "dummy").folder.parent / AUDIT
    check_new(path, force=force)
    given: dict[str, Any] = {"blocks": options.names(blocks), "split": split or "default", "seed": seed}
    found = audit_task(store, task, threshold=threshold, **given, notify=note)
    write_json(path, found, force=force)
    say(f"{audit_text(found)}\nwrote {path}")


def learning_curve(
    runs: options.Runs,
    *,
    points: Annotated[int, typer.Option(help="Sizes of the training part.", rich_help_panel="Training")] = 6,
    repeats: Annotated[
        int, typer.Option(help="Random orders in which images are added.", rich_help_panel="Training")
    ] = 3,
    seed: options.Seed = 0,
    force: options.Force = False,
) -> None:
    """Fit the head of each run on fewer training images: would more labels help? Writes RUN/curve.json."""
    from classify.json_file import write_json
    from classify.pages.tables import curve_text
    from classify.runs.findings_json import CURVE
    from classify.studies.learning_curve import check_sizes, fit_learning_curve

    check_sizes(points, repeats)
    for run in _fitted_runs(runs, CURVE, force=force):
        learned = fit_learning_curve(run, n_points=points, n_repeats=repeats, seed=seed)
        write_json(run.folder / CURVE, learned, force=force)
        say(curve_text(run, learned))


def _fitted_runs(places: list[Path], file: str, *, force: bool) -> list[Run]:
    """Open the runs whose head was fitted here; refuse a *file* that lies in one of them, before any work."""
    from classify.json_file import check_new
    from classify.runs.folder import find_runs

    found = find_runs(places)
    fitted = [run for run in found if not run.report.transfer] or found  # where none was fitted here, it is refused
    for run in found:
        if run not in fitted:
            note(f"{run.folder} scores a head that was fitted elsewhere: left out")
    for run in fitted:
        check_new(run.folder / file, force=force)
    return fitted


def seeds(
    runs: options.Runs,
    *,
    n: Annotated[int, typer.Option("--n", help="Seeds; that of the run is the first.", rich_help_panel="Training")] = 5,
    force: options.Force = False,
) -> None:
    """Fit the head of each run again with other seeds: how much of its score is chance? Writes RUN/seeds.json."""
    from classify.json_file import write_json
    from classify.pages.tables import seeds_text
    from classify.runs.findings_json import SEEDS
    from classify.studies.seeds import seeds_of

    for run in _fitted_runs(runs, SEEDS, force=force):
        spread = seeds_of(run, n)
        write_json(run.folder / SEEDS, spread, force=force)
        say(seeds_text(run, spread))


def ablate(
    store: options.Store,
    *,
    task: options.Task,
    blocks: options.Blocks = None,
    split: options.Split = None,
    allow_split_groups: options.AllowSplitGroups = False,
    head: Annotated[
        str, typer.Option(help="svm, ridge (both share work between subsets), or any head.", rich_help_panel="Head")
    ] = "svm",
    settings: options.Settings = None,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation.", rich_help_panel="Training")] = 5,
    seed: options.Seed = 0,
    out: Annotated[Path | None, options.written("File. [default: runs/CORPUS/TASK/ablation-HEAD.json]")] = None,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Score every subset of blocks by cross-validation: which network helps. Writes a JSON file and a chart.

    The test part of the split is not used.
    """
    from classify.figures.charts import ABLATION_TITLE, ablation_chart
    from classify.figures.svg import standalone
    from classify.json_file import check_new, read_regular, write_json
    from classify.pages.page import write_text
    from classify.pages.tables import ablation_text
    from classify.runs.findings_json import read_ablation
    from classify.studies.ablation import ablate as ablate_blocks

    given: dict[str, Any] = {"store": store, "task": task, "head": head, "blocks": blocks, "split": split, "seed": seed}
    config = options.run_config(**given, set=settings, allow_split_groups=allow_split_groups)
    path = out or config.beside(f"ablation-{head}.json")
    chart = path.with_suffix(".svg")
    if path.exists() and not chart.exists() and not force and (left := read_ablation(path)):
        write_text(chart, standalone(ablation_chart(left)), force=False)
        say(f"{path} was there already; drew {chart.name} beside it", err=True)
        return
    check_new(path, force=force)
    # A killed process may have left a chart without its ablation: only that one is replaced unasked.
    ours = chart.is_file() and ABLATION_TITLE.encode() in read_regular(chart)[:2000]
    check_new(chart, force=force or ours)
    with progress_bar("fits") as progress:
        found = ablate_blocks(config, folds=folds, notify=note, progress=progress)
    write_json(path, found, force=force)  # the result first: the chart is drawn from it
    write_text(chart, standalone(ablation_chart(found)), force=True)
    say(json.dumps(found, indent=2, ensure_ascii=False) if as_json else ablation_text(found))
    say(f"wrote {path} and {chart.name}", err=True)


def figure(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUNS",
            help="Run folders; of curves also folders of fitted networks, of a histogram stores.",
            show_default=False,
        ),
    ],
    *,
    kind: Annotated[str, typer.Option(metavar="curves|confusion|plane|histogram|explanations", help="What is drawn.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The SVG file.", rich_help_panel="Output")],
    task: Annotated[
        str | None,
        typer.Option(help="Of a histogram: a task with values. [default: the first]", rich_help_panel="Data"),
    ] = None,
    member: Annotated[
        str | None,
        typer.Option(help="Of a histogram: a corpus of a union, drawn against all of it.", rich_help_panel="Data"),
    ] = None,
    force: options.Force = False,
) -> None:
    """Draw several runs in one figure: curves of training, confusions, planes, explanations side by side."""
    from classify.errors import ConfigError
    from classify.json_file import check_new
    from classify.pages.figure import figure as draw
    from classify.pages.page import write_text

    if out.suffix.lower() != ".svg":
        raise ConfigError(f"{out}: figures are written as SVG, which browsers and office programs show; give FILE.svg")
    check_new(out, force=force)
    write_text(out, draw(kind, places, task=task, member=member), force=force)
    say(f"wrote {out}")
