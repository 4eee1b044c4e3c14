"""The commands about new images, bundles and submissions; `__main__` puts them on the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classify.console import say

if TYPE_CHECKING:
    from classify.inference.model import Model, Prediction

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
WeightFiles = Annotated[
    list[str] | None,
    typer.Option(metavar="ENCODER=FILE", help="The checkpoint of an encoder that was extracted with one; repeatable."),
]
Download = Annotated[
    bool, typer.Option("--allow-download", help="Fetch weights that aren't here from the hub that the passport names.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def predict(
    place: Annotated[
        Path, typer.Argument(metavar="RUN|BUNDLE", help="A run's folder, or a bundle.", show_default=False)
    ],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES|FOLDER|-", help="Images, folders, or - for paths on the input, one a line."),
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each image.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    device: Device = "auto",
    weights: WeightFiles = None,
    max_failed: Annotated[
        str, typer.Option(help="Images without an answer, 5% or a number; above it exit code 3.")
    ] = "5%",
    allow_download: Download = False,
) -> None:
    """Predict for new images: calibrated probabilities, the decision, or why an image can't be used.

    The encoders are rebuilt from the passports of the run, and refused if their weights differ.

    Example: classify predict runs/emoji/polarity/mlp holiday.jpg --json
    """
    from classify.errors import ConfigError
    from classify.inference.bundle import open_model
    from classify.inference.model import random_weights
    from classify.inference.predictor import Predictor, image_paths
    from features_store.failures import FailureLimit

    limit = FailureLimit(max_failed)
    if as_json and as_csv:
        message = "--json and --csv exclude each other; give one"
        raise ConfigError(message)
    if "-" in images and len(images) > 1:
        message = "- stands for paths on the input, and can't be mixed with others"
        raise ConfigError(message)
    asked = None if images == ["-"] else image_paths(images)
    model = open_model(place)
    for warning in random_weights(model.passports):
        say(f"warning: {warning}", err=True)
    files = _weight_files(weights)
    predictor = Predictor(model, device=device, weights=files, allow_download=allow_download)
    if asked is None:
        paths = (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        n_failed, n_images = _print_predictions(model, predictor(paths), as_json=as_json, as_csv=as_csv)
        if not n_images:
            message = "no path came on the input; write one a line, or name the images instead of -"
            raise ConfigError(message)
    else:
        from tqdm import tqdm

        with tqdm(total=len(asked), unit=" images", delay=2, leave=False, disable=not sys.stderr.isatty()) as bar:
            found = predictor.many(asked, step=bar.update)
            n_failed, n_images = _print_predictions(model, found, as_json=as_json, as_csv=as_csv)
    if limit.exceeded(n_failed, n_images):
        raise typer.Exit(3)


def _print_predictions(
    model: Model, predictions: Iterable[Prediction], *, as_json: bool, as_csv: bool
) -> tuple[int, int]:
    """Print one by one; return how many images have no prediction, and how many there are."""
    from classify.inference.model import csv_header

    if as_csv:
        say(csv_header(model))
    line = model.as_json if as_json else model.as_csv if as_csv else model.as_text
    failed = n_images = 0
    for prediction in predictions:
        n_images += 1
        say(line(prediction))
        sys.stdout.flush()  # a program that sends one path at a time waits for this line
        failed += bool(prediction.reason)
    if failed:
        say(f"note: {failed} image{'s' if failed > 1 else ''} without an answer", err=True)
    return failed, n_images


def _weight_files(pairs: list[str] | None) -> dict[str, Path]:
    from classify.errors import ConfigError

    found = {}
    for pair in pairs or []:
        name, equals, file = pair.partition("=")
        if not equals or not Path(file).is_file():
            message = f"--weights {pair!r} isn't ENCODER=FILE with a file that exists"
            raise ConfigError(message)
        found[name] = Path(file)
    return found


def bundle(
    run: RunFolder,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The bundle to make.")],
    force: Force = False,
) -> None:
    """Pack a run into one file that `classify predict` opens on another machine.

    Example: classify bundle runs/emoji/polarity/mlp -o polarity.zip
    """
    from classify.inference.bundle import write_bundle
    from classify.runs.folder import read_run

    names = write_bundle(read_run(run), out, force=force)
    say(f"{out}: {len(names)} files, {out.stat().st_size / 1024:.0f} KiB")


def explain(
    run: RunFolder,
    images: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGES...", help="Images. [default: six surest of the test part]")
    ] = None,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Also measure, on the test images, that the maps mean something.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=8, help="Of --check: only the first N test images.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the pictures. [default: data/CORPUS]")] = None,
    weights: WeightFiles = None,
    allow_download: Download = False,
    force: Force = False,
) -> None:
    """Show why: where each encoder looked, the share of each block, named features. Leaves RUN/explanations.

    Example: classify explain runs/emoji/polarity/mlp --check
    """
    from classify.explain.deletion_check import deletion_check, deletion_text
    from classify.explain.explainer import Explainer, check_explanations, chosen_images, explain_images, scored_images
    from classify.inference.predictor import image_paths
    from classify.pages.svg import fit_bar
    from classify.runs.folder import read_run

    opened = read_run(run)
    check_explanations(opened, force=force)
    scored = scored_images(opened, data) if check or not images else {}
    paths = image_paths(images) if images else chosen_images(opened, scored)
    import torch

    torch.set_num_threads(1)  # hundreds of small passes: on a busy machine more threads mostly wait for each other
    explainer = Explainer(opened, weights=_weight_files(weights), allow_download=allow_download)
    asked = list(scored.values())[:limit] if check else []
    with fit_bar("images") as progress:
        done = iter(range(1, len(asked) + len(paths) + 1))

        def step() -> None:
            progress(next(done), len(asked) + len(paths))

        deletion = deletion_check(explainer, asked, step=step) if asked else None
        found = explain_images(opened, explainer, paths, deletion=deletion, force=force, step=step)
    for explained in found:
        say(str(explained))
    if deletion:
        say(deletion_text(deletion))
    say(f"wrote {opened.folder / 'explanations'}")


def submit(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="A run for each task, in the order of the columns.")
    ],
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="The CSV file to make.")] = None,
    check: Annotated[Path | None, typer.Option(metavar="FILE", help="Check a file that is there instead.")] = None,
    template: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A CSV file whose ids give the order, like testset.csv.")
    ] = None,
    part: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    at_half: Annotated[bool, typer.Option("--at-half", help="Labels from 0.5 on, not the run's thresholds.")] = False,
    force: Force = False,
) -> None:
    """Write a file of predictions in MediaEval's form, read it back, and score it again before it gets its name.

    Example: classify submit runs/mediaeval21/subtask1/moe runs/mediaeval21/subtask2/mlp -o run1.csv
    """
    from classify.errors import ConfigError
    from classify.inference.submission import check_submission, plan_submission, write_submission
    from classify.json_file import check_new
    from classify.runs.folder import read_run
    from features_store.errors import unknown_name
    from features_store.schema import PART_NAMES

    if (out is None) == (check is None):
        message = "give either --out FILE, to write one, or --check FILE, to look at one"
        raise ConfigError(message)
    if part not in PART_NAMES:
        raise ConfigError(unknown_name("part", part, PART_NAMES))
    if out is not None:
        check_new(out, force=force)
    plan = plan_submission([read_run(run) for run in runs], template=template, part=part, at_half=at_half)
    found = check_submission(check, plan) if check else write_submission(plan, out or Path(), force=force)
    say(f"{check or out}: {len(plan.ids)} images, columns {', '.join(plan.titles)}")
    for task, one in found.items():
        scored = f"{one['metric']} {one['value']!r}, as in the run" if one["n_images"] else "no label to score by"
        say(f"  {task}: {scored} ({one['n_images']} labelled images)")


COMMANDS: tuple[Callable[..., Any], ...] = (predict, explain, bundle, submit)
