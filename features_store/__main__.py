"""Command line of the store: look at dumps, check them, cut and join them."""

from __future__ import annotations

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


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """Run the command line."""
    console.main(app)


if __name__ == "__main__":
    main()
