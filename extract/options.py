"""Command-line options that several commands share: where a corpus lies, its own options, what may fail."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from extract.errors import CorpusError

if TYPE_CHECKING:
    from extract.corpora import Corpus

__all__ = ["AsJson", "CorpusName", "Data", "MaxFailed", "Option", "SkipUnreadable", "corpus_place", "key_values"]

CORPUS, OUTPUT = "Corpus", "Output"  # panels of --help
CorpusName = Annotated[str, typer.Argument(help="Name of a corpus; `extract corpora` lists them.")]
Data = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATH",
        help="Folder, tar, zip or URL of the images; for a union NAME=PATH for each. Default: the corpus' own place.",
        rich_help_panel=CORPUS,
    ),
]
Option = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Option of the corpus; repeatable.", rich_help_panel=CORPUS),
]
MaxFailed = Annotated[
    str,
    typer.Option(
        metavar="SHARE|N", help="Images that may fail: 5% or a number. Above: exit code 3.", rich_help_panel=OUTPUT
    ),
]
SkipUnreadable = Annotated[
    bool,
    typer.Option(
        "--skip-unreadable",
        help="Count a file that cannot be read as missing; else the run stops.",
        rich_help_panel=OUTPUT,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.", rich_help_panel=OUTPUT)]


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
    if wrong := [text for text in data if "=" not in text]:
        raise CorpusError(
            f"--data {wrong[0]}: corpus {corpus.name!r} has several members; write --data NAME=PATH for each"
        )
    return {name: _path_or_url(path) for name, _, path in (text.partition("=") for text in data)}


def _path_or_url(text: str) -> Path | str:
    from extract.inputs.files import is_url

    return text if is_url(text) else Path(text)


def key_values(texts: list[str]) -> dict[str, str]:
    """Split ``KEY=VALUE`` texts.

    Raises CorpusError.
    """
    for text in texts:
        if "=" not in text:
            raise CorpusError(f"--option {text!r} has no '='; write --option KEY=VALUE")
    return dict(text.split("=", 1) for text in texts)
