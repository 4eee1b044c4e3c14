"""The command ``extract fit``; `__main__` puts it on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from extract.errors import EncoderError
from extract.options import CORPUS, OUTPUT, AsJson, Data, Option, corpus_place
from features_store.console import key_values

__all__ = ["EXAMPLES", "fit", "parse_options"]

EXAMPLES = """Examples:

extract fit emosepar --corpus twitter1 --data twitter1.zip --task polarity --augment

extract fit resnet32 --corpus folder --data pictures/ --task label --set epochs=20 --set learning_rate=0.01
"""
_TRAINING, _SPEED = "Training", "Speed"  # panels of --help, beside those of `extract.options`


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` pairs; values are JSON (``50``, ``1e-3``, ``[8, 16]``), and ``none`` is None.

    Raises EncoderError.
    """
    options: dict[str, Any] = {}
    for key, text in key_values("--set", pairs, "epochs=20").items():
        try:
            options[key] = None if text.strip() == "none" else json.loads(text)
        except ValueError:
            raise EncoderError(
                f"--set {key}={text} is not a number or a list; write for example --set epochs=20"
            ) from None
    return options


def fit(  # noqa: PLR0913 - each is an option of the command line
    network: Annotated[str, typer.Argument(help="emosepar, resnet32 or fractalnet.", show_default=False)],
    *,
    corpus: Annotated[
        str, typer.Option(help="Name of a corpus; `extract corpora` lists them.", rich_help_panel=CORPUS)
    ],
    task: Annotated[str, typer.Option(help="Task of the corpus that is learned.", rich_help_panel=CORPUS)],
    data: Data = None,
    option: Option = None,
    split: Annotated[
        str, typer.Option(help="A split of the corpus; its test part is never read.", rich_help_panel=CORPUS)
    ] = "default",
    augment: Annotated[
        bool,
        typer.Option("--augment", help="Rotate, shift, shear, scale and flip in training.", rich_help_panel=_TRAINING),
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="epochs, batch_size, learning_rate, momentum, decay, weight_decay, halve_every, clip, seed, dropout; "
            "of fractalnet also widths, columns, drop_path. Repeatable; else the published recipe.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of its blocks. Default: that of the network.", rich_help_panel=OUTPUT)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A new folder. Default: networks/NAME-CORPUS-TASK.", rich_help_panel=OUTPUT),
    ] = None,
    as_json: AsJson = False,
    device: Annotated[
        str, typer.Option(help="auto (a GPU if one can be used), cpu, cuda or cuda:N.", rich_help_panel=_SPEED)
    ] = "auto",
) -> None:
    """Train a small network from scratch; its checkpoint is an encoder: --encoders fit:FOLDER."""
    from extract.corpora import find_corpus
    from extract.encoders.fitted import check_new, find_architecture
    from extract.engines import choose_device
    from extract.engines.device import device_errors
    from extract.fit.data import read_examples
    from extract.fit.training import fit as train
    from extract.fit.training import recipe_for

    architecture, found = find_architecture(network), find_corpus(corpus)
    asked = {**parse_options(settings or []), **({"augment": True} if augment else {})}
    recipe, options = recipe_for(architecture, asked)
    name = name or network
    folder = out or Path("networks") / f"{name}-{corpus.replace(':', '-')}-{task}"
    check_new(folder)
    chosen = choose_device(device)
    reading = found.read(corpus_place(found, data), key_values("--option", option or [], "KEY=VALUE"))
    for note in reading.notes:
        typer.echo(f"note: {note}", err=True)
    examples = read_examples(reading, architecture, task=task, split=split)
    if examples.n_refused:
        typer.echo(f"note: {examples.n_refused} images could not be decoded and are left out", err=True)
    with device_errors(chosen.name()):
        record = train(
            examples,
            architecture,
            folder,
            recipe=recipe,
            options=options,
            name=name,
            fitted_on={"corpus": corpus, "task": task, "split": split, "index_digest": reading.index.digest},
            device=chosen.address,
            progress=sys.stderr.isatty(),
        )
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **record}))
        return
    last = record["history"][record["fitted_on"]["epochs"] - 1]
    losses = ", ".join(f"{key.replace('_', ' ')} {last[key]:.4f}" for key in ("loss", "validation_loss") if key in last)
    typer.echo(f"{network}: best of {recipe.epochs} epochs is {last['epoch']}: {losses}")
    typer.echo(f"wrote {folder}; use it with: extract run {corpus} --encoders fit:{folder}")
