"""Command line of the store: look at dumps, check them, cut and join them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from features_store import console
from features_store.commands import COMMANDS
from features_store.reader import open_store
from features_store.summary import as_text, summarise

app = typer.Typer(
    help="Look at feature dumps, check them, cut and join them. A STORE is one dump (.h5), or a folder of dumps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="A dump (.h5), or a folder of dumps over one index.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]


@app.command()
def info(
    store: StorePath,
    as_json: Json = False,
    failed: Annotated[bool, typer.Option("--failed", help="List every failed image, not only the first 20.")] = False,
) -> None:
    """Print the ids, labels, splits, blocks, sizes and passports of a store."""
    summary = summarise(open_store(store))
    print(json.dumps(summary, indent=2, ensure_ascii=False) if as_json else as_text(summary, all_failures=failed))


@app.command()
def verify(
    store: StorePath,
    recompute: Annotated[
        int, typer.Option(metavar="N", min=0, help="Also extract N random rows of each block again, and compare.")
    ] = 0,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="The images, for --recompute; of a union NAME=FOLDER each."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every vector of a store against its digest and its block's seal. Exit code 0: good; 2: something is wrong.

    Example: features-store verify features/emoji --recompute 20
    """
    from features_store import verify as checking

    opened = open_store(store)
    report = checking.verify_with_bar(opened)
    if recompute:
        report = checking.with_drifts(report, opened, recompute, data)
    wrong = report.problems()
    print(json.dumps(dataclasses.asdict(report), indent=2, ensure_ascii=False) if as_json else report.as_text())
    for sentence in wrong:
        typer.echo(f"error: {sentence}", err=True)
    if wrong:
        raise typer.Exit(2)


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """Run the command line."""
    console.main(app)


if __name__ == "__main__":
    main()
