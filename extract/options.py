"""Options of the command lines: those of `RunSettings`, and where a corpus lies, with its own options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from extract.errors import CorpusError
from extract.settings import RunSettings
from features_store.console import key_values

if TYPE_CHECKING:
    from extract.corpora import Corpus

CORPUS, OUTPUT = "Corpus", "Output"
PANELS = (CORPUS, "Encoders", OUTPUT, "Speed", "Views", "Scale-out")
"""The panels of ``--help``, in their order."""
_DECLARED = {one.name: dict(one.metadata) for one in fields(RunSettings) if one.metadata}
Command = TypeVar("Command", bound=Callable[..., None])


def panel(name: str) -> Callable[..., Any]:
    """Return what declares an option in a named panel of ``--help``."""
    return partial(typer.Option, rich_help_panel=name)


def setting(name: str) -> Any:
    """Declare the option of a field of `RunSettings`."""
    return typer.Option(f"--{name.replace('_', '-')}", **_DECLARED[name])


def with_settings(command: Command) -> Command:
    """Give a command, which takes them as further keywords, an option for each field of `RunSettings` that has one."""
    hints, signature = get_type_hints(RunSettings), inspect.signature(command, eval_str=True)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    added = [
        inspect.Parameter(
            one.name, own[0].kind, default=one.default, annotation=Annotated[hints[one.name], setting(one.name)]
        )
        for one in fields(RunSettings)
        if one.name in _DECLARED
    ]

    def place(one: inspect.Parameter) -> int:
        declared = getattr(one.annotation, "__metadata__", (None,))[0]
        return PANELS.index(getattr(declared, "rich_help_panel", None) or CORPUS)

    every = sorted([*own, *added], key=place)
    command.__signature__ = signature.replace(parameters=every)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in every}
    return command


in_corpus, in_output = panel(CORPUS), panel(OUTPUT)
CorpusName = Annotated[str, typer.Argument(help="Name of a corpus; `extract corpora` lists them.")]
Data = Annotated[
    list[str] | None,
    in_corpus(metavar="PATH", help="Folder, tar, zip or URL; NAME=PATH for each of a union. Default: its own place."),
]
Option = Annotated[list[str] | None, in_corpus(metavar="KEY=VALUE", help="Option of the corpus; repeatable.")]
MaxFailed = Annotated[str, setting("max_failed")]
SkipUnreadable = Annotated[bool, setting("skip_unreadable")]
AsJson = Annotated[bool, in_output("--json", help="Print JSON for programs.")]


def corpus_place(corpus: Corpus, data: list[str] | None) -> Path | str | dict[str, Path | str] | None:
    """Return the place of a corpus, or of each member of a union; None = its own default."""
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
