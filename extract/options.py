"""Command-line options that several commands share: where a corpus lies, its own options, what may fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from extract.errors import CorpusError
from features_store.console import key_values

if TYPE_CHECKING:
    from extract.corpora import Corpus


def panel(name: str) -> Callable[..., Any]:
    """Return what declares an option in a named panel of ``--help``."""
    return partial(typer.Option, rich_help_panel=name)


CORPUS, OUTPUT = "Corpus", "Output"  # panels of --help
in_corpus, in_output = panel(CORPUS), panel(OUTPUT)
CorpusName = Annotated[str, typer.Argument(help="Name of a corpus; `extract corpora` lists them.")]
Data = Annotated[
    list[str] | None,
    in_corpus(metavar="PATH", help="Folder, tar, zip or URL; NAME=PATH for each of a union. Default: its own place."),
]
Option = Annotated[list[str] | None, in_corpus(metavar="KEY=VALUE", help="Option of the corpus; repeatable.")]
MaxFailed = Annotated[str, in_output(metavar="SHARE|N", help="Images that may fail: 5% or 40. Above: exit code 3.")]
SkipUnreadable = Annotated[
    bool, in_output("--skip-unreadable", help="Count a file that cannot be read as missing; else the run stops.")
]
AsJson = Annotated[bool, in_output("--json", help="Print JSON for programs.")]


def corpus_place(corpus: Corpus, data: list[str] | None) -> Path | str | dict[str, Path | str] | None:
    """Return the place of a corpus, or of each member of a union; None = its own default.

    Raises CorpusError.
    """
    if not data:
        return None
    if not corpus.members:
        if len(data) > 1:
            raise CorpusError(f"corpus {corpus.name!r} has one --data; got {len(data)}")
        return _path_or_url(data[0])
    return {name: _path_or_url(path) for name, path in key_values("--data", data, "NAME=PATH for each member").items()}


def _path_or_url(text: str) -> Path | str:
    from extract.inputs.files import is_url

    return text if is_url(text) else Path(text)
