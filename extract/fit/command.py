"""The command ``extract fit``; `__main__` puts it on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from extract.errors import EncoderError
from extract.options import CORPUS, OUTPUT, AsJson, Data, Option, corpus_place, panel
from features_store.console import key_values

if TYPE_CHECKING:
    from extract.fit.data import Examples
    from extract.inputs.transforms import Transform

__all__ = ["EXAMPLES", "fit", "parse_options"]

EXAMPLES = """Examples:

extract fit emosepar --corpus twitter1 --data twitter1.zip --task polarity --augment strong

extract fit resnet18 --corpus folder --data pictures/ --task label --size 128 --set epochs=20 --set learning_rate=0.01

extract fit vgg16 --pretrained --trainable 3 --corpus b-t4sa --data b-t4sa/ --task polarity --time-budget 9h --resume
"""
_in_corpus, _in_output = panel(CORPUS), panel(OUTPUT)
_in_network, _in_training, _in_speed = panel("Network"), panel("Training"), panel("Speed")


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` pairs; values are JSON (``50``, ``[8, 16]``) or words (``adam``), and ``none`` is None.

    Raises EncoderError.
    """
    options: dict[str, Any] = {}
    for key, text in key_values("--set", pairs, "epochs=20").items():
        try:
            options[key] = None if text.strip() == "none" else json.loads(text)
        except ValueError:
            if not text.replace("_", "").replace("-", "").isalnum() or text[:1].isdigit():
                raise EncoderError(
                    f"--set {key}={text} is not a number, a list or a word; write for example --set epochs=20"
                ) from None
            options[key] = text
    return options


def fit(  # noqa: PLR0913 - each is an option of the command line
    network: Annotated[
        str,
        typer.Argument(
            help="emosepar, resnet32, fractalnet, alexnet, concepts, or any network of timm by its bare name.",
            show_default=False,
        ),
    ],
    *,
    corpus: Annotated[str, _in_corpus(help="Name of a corpus; `extract corpora` lists them.")],
    task: Annotated[str, _in_corpus(help="Task of the corpus that is learned.")],
    data: Data = None,
    option: Option = None,
    split: Annotated[str, _in_corpus(help="A split of the corpus; its test part is never read.")] = "default",
    limit: Annotated[int | None, _in_corpus(min=1, help="Only N images of each part, from all over it.")] = None,
    size: Annotated[int | None, _in_network(help="Edge of its input, pixels. Default: the network's own.")] = None,
    pretrained: Annotated[
        bool, _in_network("--pretrained", help="Start at the published weights, from a model hub.")
    ] = False,
    weights: Annotated[Path | None, _in_network(metavar="FILE", help="Start at the weights of a file.")] = None,
    augment: Annotated[
        str,
        _in_training(
            metavar="none|mediaeval|flip-rotate-crop|random-crop|strong", help="How training images are distorted."
        ),
    ] = "none",
    trainable: Annotated[
        str | None, _in_training(metavar="all|N", help="Train the last N layers, and freeze the others.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        _in_training(
            "--set",
            metavar="KEY=VALUE",
            help="epochs, batch_size, optimizer, learning_rate, momentum, decay, weight_decay, halve_every, rates, "
            "clip, augment_validation, class_weight, cost, patience, keep, seed; of the input crop, interpolation, "
            "input; of the network init, dropout, and of some drop_path, top, depth, width, widths, columns, trunk. "
            "Repeatable; else the published recipe.",
        ),
    ] = None,
    time_budget: Annotated[
        str | None, _in_training(metavar="TIME", help="Stop in time, such as 9h, and keep the state: exit code 3.")
    ] = None,
    resume: Annotated[
        bool, _in_training("--resume", help="Go on with training that was stopped; equal to the bit on a CPU.")
    ] = False,
    name: Annotated[str | None, _in_output(help="Name of its blocks. Default: that of the network.")] = None,
    out: Annotated[Path | None, _in_output(help="A new folder. Default: networks/NAME-CORPUS-TASK.")] = None,
    as_json: AsJson = False,
    device: Annotated[str, _in_speed(help="auto (a GPU if one can be used), cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str, _in_speed(metavar="auto|float32|bfloat16|float16", help="auto: float16 on CUDA, else float32.")
    ] = "auto",
) -> None:
    """Train a network on the images of a corpus; its checkpoint is an encoder: --encoders fit:FOLDER."""
    from extract.corpora import find_corpus
    from extract.encoders.fitted import check_new
    from extract.encoders.networks import find_architecture
    from extract.engines import choose_device
    from extract.fit.checkpoint import budget_seconds, check_state
    from extract.fit.data import labels_and_parts, read_examples
    from extract.fit.losses import make_loss
    from extract.fit.recipe import recipe_for
    from extract.fit.training import fit as train
    from features_store.schema import check_name
    from features_store.seal import meaning_digest

    architecture, found = find_architecture(network), find_corpus(corpus)
    asked = {"augment": augment, **_trainable(trainable), **({"size": size} if size is not None else {})}
    recipe, options, given = recipe_for(architecture, {**asked, **parse_options(settings or [])})
    if pretrained and weights is not None:
        raise EncoderError(f"--pretrained and --weights {weights} exclude each other; give one")
    if weights is not None and not weights.is_file():
        raise EncoderError(f"--weights {weights} is no file; give a state dict, as .safetensors or .pth")
    name = check_name("block", name or network)
    folder = out or Path("networks") / f"{name}-{corpus.replace(':', '-')}-{task}"
    check_new(folder)
    check_state(folder, resume=resume)
    seconds, chosen = budget_seconds(time_budget), choose_device(device)
    autocast = chosen.autocast(precision)
    reading = found.read(corpus_place(found, data), key_values("--option", option or [], "KEY=VALUE"))
    for note in reading.notes:
        typer.echo(f"note: {note}", err=True)
    index = reading.index
    labels, parts = labels_and_parts(reading, task=task, split=split)
    make_loss(labels.task, labels.values[labels.known], recipe, "cpu")  # what is wrong is found before images are read

    def read(transform: Transform) -> Examples:
        examples = read_examples(reading, transform, task=task, split=split, limit=limit)
        if examples.n_refused:
            typer.echo(f"note: {examples.n_refused} images could not be decoded and are left out", err=True)
        return examples

    meaning = meaning_digest({task: labels}, {split: parts}, index.groups)
    digests = {"index_digest": index.digest, "meaning_digest": meaning}
    limited = {} if limit is None else {"limit": limit}
    record = train(
        labels.task,
        read,
        architecture,
        folder,
        recipe=recipe,
        options=options,
        given=given,
        initial=weights or pretrained,
        name=name,
        fitted_on={"corpus": corpus, "task": task, "split": split, **digests, **limited},
        device=chosen,
        autocast=autocast,
        resume=resume,
        seconds=seconds,
        progress=sys.stderr.isatty(),
    )
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **record}))
        return
    last = record["history"][record["fitted_on"]["epochs"] - 1]
    shown = ", ".join(
        f"{key.replace('_', ' ')} {last[key]:.4f}" for key in last if key not in ("epoch", "learning_rate")
    )
    kept = "best" if recipe.keep == "best" else "last"
    typer.echo(f"{network}: the {kept} of {len(record['history'])} epochs is {last['epoch']}: {shown}")
    typer.echo(f"wrote {folder}; use it with: extract run {corpus} --encoders fit:{folder}")


def _trainable(text: str | None) -> dict[str, int | None]:
    if text is None or text == "all":
        return {} if text is None else {"trainable": None}
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10_000):
        raise EncoderError(f"--trainable {text} is neither all nor a number of last layers")
    return {"trainable": int(text)}
