"""Command line of the store: look at dumps, check them, cut and join them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from features_store import console
from features_store.commands import COMMANDS, StorePath
from features_store.errors import MismatchError
from features_store.store import open_store
from features_store.summary import as_text, summarise

app = typer.Typer(
    help="Look at feature dumps, check them, cut and join them. A STORE is one dump (.h5), or a folder of dumps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
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
        typer.Option(metavar="FOLDER", help="The images, for --recompute; of a union NAME=FOLDER for each member."),
    ] = None,
    write_list: Annotated[
        bool, typer.Option("--write-list", help="Then write the list of blocks, store.json, if nothing is wrong.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every vector of a store against its digest and its block's seal, and its labels, splits and groups.

    Exit code 0: good; 2: something is wrong. What was checked, and what was not, is printed.

    Example: features-store verify features/emoji --recompute 20
    """
    from features_store import verify as checking

    opened = open_store(store)
    report = checking.verify_with_bar(opened)
    if recompute:
        report = checking.with_drifts(report, opened, recompute, _place(data or []))
    wrong = report.problems()
    print(json.dumps(dataclasses.asdict(report), indent=2, ensure_ascii=False) if as_json else report.as_text())
    for sentence in wrong:
        typer.echo(f"error: {sentence}", err=True)
    if wrong:
        raise typer.Exit(2)
    if write_list:
        from features_store import listing

        path = listing.write_list(opened, store)
        typer.echo(f"{path}: {len(opened.blocks)} block(s)", err=True)


def _place(data: list[str]) -> Path | dict[str, Path] | None:
    """Return one folder, or that of each member of a union."""
    if len(data) == 1 and ("=" not in data[0] or Path(data[0]).exists()):
        return Path(data[0])
    wrong = [text for text in data if "=" not in text]
    if wrong:
        raise MismatchError(
            f"--data {wrong[0]}: several folders are those of a union's members; write --data NAME=FOLDER for each"
        )
    return {name: Path(path) for name, _, path in (text.partition("=") for text in data)} or None


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """Run the command line."""
    console.main(app)


if __name__ == "__main__":
    main()
