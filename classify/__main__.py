"""The command line of stage 2: runs, their comparison, ablations, sweeps, audits, curves and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from classify.cli import results as outputs
from classify.cli import studies as commands
from classify.console import note, say
from features_store.console import main as _program

app = typer.Typer(
    help="Train shallow heads on the vectors of a store, and show how good they are.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # in which [[grid]] and [default: ...] are text
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    store: Annotated[str | None, typer.Argument(help="A dump, or a folder of dumps.", show_default=False)] = None,
    task: Annotated[str | None, typer.Option(help="A task of the store.")] = None,
    head: Annotated[str | None, typer.Option(help="A head; see `classify heads`.")] = None,
    blocks: Annotated[str | None, typer.Option(help="Blocks A,B,... [default: all of vectors]")] = None,
    split: Annotated[str | None, typer.Option(help="A split of the store. [default: default]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random. [default: 0]")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the head; repeatable.")
    ] = None,
    allow_split_groups: commands.AllowSplitGroups = False,
    out: Annotated[str | None, typer.Option(help="Run folder. [default: runs/CORPUS/TASK/HEAD]")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with the same keys; flags win over it.")] = None,
    preset: Annotated[str | None, typer.Option(help="A published experiment; `classify presets` lists them.")] = None,
    quick: commands.Quick = False,
    time_budget: Annotated[str | None, typer.Option(help="Stop training in time, like 9h, and keep its state.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with training that was stopped, to the bit.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run that is there.")] = False,
) -> None:
    """Fit one head on one task, score it beside the majority baseline, and write a run folder.

    Where a time budget ends before training does, the exit code is 3, and nothing but its state is written.
    """
    from classify.config import load_config, parse_settings
    from classify.pages.plots import write_plots
    from classify.pages.summary import run_summary
    from classify.preset import quick as cut_down
    from classify.runs.time_budget import UnfinishedError, interruption
    from classify.studies.cross_corpus import run_config

    given: dict[str, Any] = {
        "store": store, "task": task, "head": head, "blocks": blocks, "split": split, "seed": seed, "out": out,
        "set": parse_settings(settings) if settings else None, "preset": preset,
        "allow_split_groups": allow_split_groups or None,
    }  # fmt: skip
    asked = load_config(config, given)
    asked = cut_down(asked) if quick else asked
    if config:
        note(f"{config}: the run goes to {asked.folder}")
    guard = interruption(asked.folder, time_budget, resume=resume, force=force)
    try:
        done = run_config(asked, force=force, notify=note, interruption=guard)
    except UnfinishedError as stopped:
        say(f"not finished: {stopped}", err=True)
        raise typer.Exit(commands.NOT_FINISHED) from None
    say(run_summary(write_plots(done)))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some.", show_default=False)],
    paired: Annotated[bool, typer.Option("--paired", help="Compare the runs of each board two by two.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a leaderboard per task: each run with its intervals, and the baselines."""
    from classify.pages import leaderboard, pairs
    from classify.runs.folder import find_runs

    found = find_runs(runs)
    boards = leaderboard.boards(found)
    tests = [pairs.pairs(board, found) if paired else [] for board in boards]
    if as_json:
        values = leaderboard.as_json(boards)
        for value, of_board in zip(values, tests, strict=True):
            value.update({"pairs": pairs.pairs_as_json(of_board)} if paired else {})
        say(json.dumps(values, indent=2, ensure_ascii=False))
        return
    for i, (board, of_board) in enumerate(zip(boards, tests, strict=True)):
        say("\n" * bool(i) + leaderboard.as_text(board))
        if paired:
            say(pairs.pairs_as_text(board, of_board))


@app.command()
def audit(
    store: Annotated[str, typer.Argument(help="A dump, or a folder of dumps.", show_default=False)],
    task: Annotated[str, typer.Option(help="A task of the store.", show_default=False)],
    blocks: Annotated[str, typer.Option(help="Blocks A,B,... [default: all of vectors]")] = "",
    split: Annotated[str, typer.Option(help="A split of the store.")] = "default",
    threshold: Annotated[float, typer.Option(help="Cosine from which on images are near-duplicates.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    out: Annotated[Path | None, typer.Option(help="File. [default: runs/CORPUS/TASK/audit.json]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Look for near-duplicates across the parts of a split, and for labels that are probably wrong."""
    from classify.json_file import check_new, write_json
    from classify.pages.summary import audit_summary
    from classify.studies import audit as auditing

    names = tuple(name.strip() for name in blocks.split(",") if name.strip())
    config = auditing.AuditConfig(store, task, names, split, threshold, seed)
    path = out or auditing.audit_folder(config) / auditing.AUDIT
    check_new(path, force=force)
    found = auditing.audit(config, notify=note)
    write_json(path, found, force=force)
    say(f"{audit_summary(found)}\nwrote {path}")


@app.command()
def curve(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some.", show_default=False)],
    points: Annotated[int, typer.Option(help="Sizes of the training part.")] = 6,
    repeats: Annotated[int, typer.Option(help="Orders in which images are added.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace curves that are there.")] = False,
) -> None:
    """Fit the head of each run on fewer training images: would more labels help? Leaves RUN/curve.json."""
    from classify.json_file import check_new, write_json
    from classify.pages.summary import curve_summary
    from classify.runs.folder import find_runs
    from classify.studies.learning_curve import CURVE, CurveConfig, curve_of

    config, found = CurveConfig(points, repeats, seed), find_runs(runs)
    tests = [one for one in found if one.report.transfer]
    if len(tests) < len(found):  # a test of a head that was fitted elsewhere has no curve; the others have
        for one in tests:
            note(f"{one.folder} tests a head that was fitted elsewhere: passed over")
        found = [one for one in found if one not in tests]
    for one in found:
        check_new(one.folder / CURVE, force=force)
    for one in found:
        learned = curve_of(one, config)
        write_json(one.folder / CURVE, learned, force=force)
        say(curve_summary(one, learned))


@app.command()
def ablate(
    store: Annotated[str, typer.Argument(help="A dump, or a folder of dumps.", show_default=False)],
    task: Annotated[str, typer.Option(help="A task of the store.", show_default=False)],
    head: Annotated[str, typer.Option(help="svm, ridge (these share their work), or any head.")] = "svm",
    blocks: Annotated[str, typer.Option(help="Blocks A,B,... [default: all of vectors]")] = "",
    split: Annotated[str, typer.Option(help="A split; its test part is left alone.")] = "default",
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the head; repeatable.")
    ] = None,
    allow_split_groups: commands.AllowSplitGroups = False,
    out: Annotated[Path | None, typer.Option(help="File. [default: runs/CORPUS/TASK/ablation-HEAD.json]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score every subset of blocks: which network pays. Leaves a JSON file and a chart beside it."""
    from classify.config import parse_settings
    from classify.json_file import check_new, write_json
    from classify.pages.ablation import ablation_chart, ablation_text, check_chart, write_chart
    from classify.pages.svg import fit_bar
    from classify.runs.findings_json import read_ablation
    from classify.studies import ablation

    names = tuple(name.strip() for name in blocks.split(",") if name.strip())
    options = parse_settings(settings or [])
    given: dict[str, Any] = {"blocks": names, "split": split, "folds": folds, "settings": options, "seed": seed}
    config = ablation.AblationConfig(store, task, head, **given, allow_split_groups=allow_split_groups)
    path = out or ablation.ablation_folder(config) / f"ablation-{head}.json"
    chart = path.with_suffix(".svg")
    if path.exists() and not chart.exists() and not force and (left := read_ablation(path)):
        write_chart(chart, ablation_chart(left))
        say(f"{path} was there already; drew {chart.name} beside it", err=True)
        return
    check_new(path, force=force)
    check_chart(chart, force=force)
    with fit_bar("fits") as progress:
        found = ablation.ablate(config, notify=note, progress=progress)
    write_json(path, found, force=force)  # the result first: the chart is drawn from it
    write_chart(chart, ablation_chart(found), force=True)
    say(json.dumps(found, indent=2, ensure_ascii=False) if as_json else ablation_text(found))
    say(f"wrote {path} and {chart.name}", err=True)


@app.command()
def sweep(
    config: Annotated[Path, typer.Argument(help="A TOML file with [[grid]] tables.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Folder of the runs. [default: runs/CORPUS/sweep]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs, and which are there already.")] = False,
    allow_split_groups: commands.AllowSplitGroups = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Do every run of a grid that isn't there yet; interrupted, the same command goes on."""
    from classify.pages.plots import write_plots
    from classify.pages.svg import fit_bar
    from classify.pages.sweep import sweep_as_json, sweep_as_text
    from classify.runs.folder import read_run
    from classify.studies import sweep as sweeping

    cells = sweeping.read_sweep(config, out=out, allow_split_groups=allow_split_groups)
    for folder in dict.fromkeys(cell.config.folder.parent.parent for cell in cells):
        note(f"{config}: the runs go to {folder}")
    if not dry_run:
        try:
            with fit_bar("runs") as progress:
                sweeping.sweep(cells, notify=note, progress=progress)
        finally:
            for cell in cells:
                if cell.done:
                    write_plots(read_run(cell.config.folder))
    say(json.dumps(sweep_as_json(cells), indent=2, ensure_ascii=False) if as_json else sweep_as_text(cells))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
    data: Annotated[Path | None, typer.Option(help="Folder of the pictures. [default: data/CORPUS]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write one self-contained HTML page: leaderboards, evidence, errors with pictures, the data."""
    from classify.pages.page import write_report_page
    from classify.runs.folder import find_runs

    found = find_runs(runs)
    write_report_page(found, out, data=data, force=force)
    say(f"{out}: {len(found)} run{'s' if len(found) != 1 else ''}, {out.stat().st_size / 1024:.0f} KiB")


@app.command()
def heads(
    head: Annotated[str | None, typer.Argument(help="One head, with its options.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the defaults of every option.")] = False,
) -> None:
    """List the heads and the kinds of task that each can do, or the options of one."""
    from classify.pages import summary

    if as_json:
        say(json.dumps([one for one in summary.head_records() if head in (None, one["name"])], indent=2))
    else:
        say(summary.head_card(head) if head else summary.head_list())


app.command("test")(commands.cross_test)
for command in (commands.presets, commands.reproduce, commands.search):
    app.command()(command)
for command in outputs.COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command line."""
    _program(app)


if __name__ == "__main__":
    main()
