"""Options that several commands share, by the panel of ``--help`` in which they stand, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from classify.config import RunConfig, load_config
from classify.console import say
from classify.heads import ALL_HEADS
from classify.toml_text import parse_settings
from features_store.console import new_file

DATA, HEAD, TRAINING, OUTPUT, ENCODERS = "Data", "Head", "Training", "Output", "Encoders"
UNFINISHED = 3  # exit code of a run whose time budget ended, and of too many failed images


class Part(str, Enum):
    """The parts of a split."""

    train = "train"
    validation = "validation"
    test = "test"


def examples(*lines: str) -> str:
    """Return the end of a command's help."""
    return "\n\n".join(["**Examples**", *(f"- `classify {line}`" for line in lines)])


def written(help: str, *names: str) -> Any:
    """Declare a file that a command writes."""
    return typer.Option(*names, metavar="FILE", help=help, rich_help_panel=OUTPUT, parser=new_file)


def _heads(incomplete: str) -> list[tuple[str, str]]:
    return [(head.name, head.description) for head in ALL_HEADS.values() if head.name.startswith(incomplete)]


def _presets(incomplete: str) -> list[tuple[str, str]]:
    from classify.preset import presets

    return [(one.name, one.title) for one in presets().values() if one.name.startswith(incomplete)]


def _systems(incomplete: str) -> list[str]:
    from classify.preset import systems

    return [name for name in systems() if name.startswith(incomplete)]


Store = Annotated[str, typer.Argument(help="A dump, or a folder of dumps.", show_default=False)]
OptionalStore = Annotated[str | None, typer.Argument(help="A dump, or a folder of dumps.", show_default=False)]
Runs = Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some.", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)]
System = Annotated[
    str,
    typer.Argument(help="A publication; `classify presets` lists them.", show_default=False, autocompletion=_systems),
]

Task = Annotated[str, typer.Option(help="A task of the store.", show_default=False, rich_help_panel=DATA)]
OptionalTask = Annotated[str | None, typer.Option(help="A task of the store.", rich_help_panel=DATA)]
Blocks = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        help="Comma-separated blocks, concatenated in this order. [default: all blocks of vectors]",
        rich_help_panel=DATA,
    ),
]
Split = Annotated[str | None, typer.Option(help="A split of the store. [default: default]", rich_help_panel=DATA)]
Views = Annotated[
    str | None,
    typer.Option(
        "--views",
        help="What training draws from where images have several views; everywhere: validation too. [default: all]",
        metavar="all|canonical|everywhere",
        rich_help_panel=DATA,
    ),
]
AllowSplitGroups = Annotated[
    bool,
    typer.Option(
        "--allow-split-groups",
        help="Accept a split that puts images of one group into two parts although it was not published so.",
        rich_help_panel=DATA,
    ),
]
Pictures = Annotated[
    Path | None, typer.Option(help="Folder of the pictures. [default: data/CORPUS]", rich_help_panel=DATA)
]

HEAD_HELP = f"One of {', '.join(ALL_HEADS)}; `classify heads` describes them."
Head = Annotated[str, typer.Option(help=HEAD_HELP, rich_help_panel=HEAD, autocompletion=_heads)]
OptionalHead = Annotated[
    str | None, typer.Option(help=f"{HEAD_HELP} [default: auto]", rich_help_panel=HEAD, autocompletion=_heads)
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="An option of the head, as `classify heads HEAD` lists them; repeatable.",
        rich_help_panel=HEAD,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="A published experiment; `classify presets` lists them.", rich_help_panel=HEAD, autocompletion=_presets
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", rich_help_panel=TRAINING)]
OptionalSeed = Annotated[
    int | None, typer.Option(help="Seed of everything random. [default: 0]", rich_help_panel=TRAINING)
]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick", help="Few images and epochs: a trial that everything works, no result.", rich_help_panel=TRAINING
    ),
]
Out = Annotated[str | None, typer.Option(help="Folder to write.", rich_help_panel=OUTPUT)]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.", rich_help_panel=OUTPUT)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.", rich_help_panel=OUTPUT)]

Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where networks run.", rich_help_panel=ENCODERS)]
WeightFiles = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ENCODER=FILE",
        help="The checkpoint of an encoder that was extracted with one; repeatable.",
        rich_help_panel=ENCODERS,
    ),
]
Download = Annotated[
    bool,
    typer.Option(
        "--allow-download",
        help="Fetch missing weights from the hub that the passport names.",
        rich_help_panel=ENCODERS,
    ),
]


def names(text: str | None) -> tuple[str, ...]:
    """Split a comma-separated list."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def run_config(config: Path | None = None, **given: Any) -> RunConfig:
    """Return the configuration of a run; *given* holds keys of its file, ``set`` as pairs of text."""
    given["set"] = parse_settings(given["set"]) if given.get("set") else None
    given["allow_split_groups"] = given.get("allow_split_groups") or None
    return load_config(config, given)


@contextmanager
def unfinished_exits() -> Iterator[None]:
    """End the program with exit code 3 where a time budget stops the work."""
    from classify.runs.time_budget import UnfinishedError

    try:
        yield
    except UnfinishedError as stopped:
        say(f"not finished: {stopped}", err=True)
        raise typer.Exit(UNFINISHED) from None
