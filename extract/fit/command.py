"""The command ``extract fit``; `__main__` puts it on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from extract.errors import EncoderError
from extract.options import corpus_place, key_values

__all__ = ["fit", "parse_options"]


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` pairs; values are JSON (``50``, ``1e-3``, ``[8, 16]``), and ``none`` is None.

    Raises
    ------
    EncoderError
        If a pair has no ``=``, or its value is no JSON.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        try:
            options[key.strip()] = None if text.strip() == "none" else json.loads(text)
        except ValueError:
            equals = ""
        if not equals or not key.strip():
            msg = f"--set {pair!r} isn't KEY=VALUE with a number or a list; write for example --set epochs=20"
            raise EncoderError(msg)
    return options


def fit(  # noqa: PLR0913 - each is an option of the command line
    network: Annotated[str, typer.Argument(help="emosepar, resnet32 or fractalnet.", show_default=False)],
    *,
    corpus: Annotated[str, typer.Option(help="Name of a corpus; `extract corpora` lists them.")],
    task: Annotated[str, typer.Option(help="What it learns: a task of the corpus.")],
    data: Annotated[list[str] | None, typer.Option(help="Place of the corpus, as of `extract run`.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of the corpus; may be repeated.")] = None,
    split: Annotated[str, typer.Option(help="A split of the corpus; its test part is never read.")] = "default",
    augment: Annotated[
        bool, typer.Option("--augment", help="Rotate, shift, shear, zoom and flip in training.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="epochs, learning_rate, ...; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What its blocks are called after. [default: the network]")] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder. [default: networks/NAME-CORPUS-TASK]")] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU if one can be used), cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Train a small network from scratch; its checkpoint is then an encoder: --encoders fit:FOLDER."""
    from extract.corpora import find_corpus
    from extract.encoders.scratch import check_new, find_architecture
    from extract.engines import choose_device
    from extract.engines.device import device_errors
    from extract.fit.data import examples
    from extract.fit.recipe import recipe_for
    from extract.fit.training import Plan
    from extract.fit.training import fit as train

    architecture, found = find_architecture(network), find_corpus(corpus)
    recipe, options = recipe_for(
        architecture, {**parse_options(settings or []), **({"augment": True} if augment else {})}
    )
    name = name or network
    folder = out or Path("networks") / f"{name}-{corpus.replace(':', '-')}-{task}"
    check_new(folder)
    chosen = choose_device(device)
    reading = found.read(corpus_place(found, data), key_values(option or []))
    for note in reading.notes:
        typer.echo(f"note: {note}", err=True)
    on = examples(reading, architecture, task=task, split=split)
    if on.n_refused:
        typer.echo(f"note: {on.n_refused} images could not be decoded and are left out", err=True)
    made_on = {"corpus": corpus, "task": task, "split": split, "index_digest": reading.index.digest}
    plan = Plan(architecture, recipe, name, options, made_on)
    with device_errors(chosen.name()):
        record = train(on, plan, folder, device=chosen.address, progress=sys.stderr.isatty())
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **record}))
        return
    last = record["history"][record["fitted_on"]["epochs"] - 1]
    losses = ", ".join(f"{key.replace('_', ' ')} {last[key]:.4f}" for key in ("loss", "validation_loss") if key in last)
    typer.echo(f"{network}: best of {recipe.epochs} epochs is {last['epoch']}: {losses}")
    typer.echo(f"wrote {folder}; use it with: extract run {corpus} --encoders fit:{folder}")
