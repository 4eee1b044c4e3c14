"""The commands that predict images, explain predictions, and package runs: predict, explain, bundle, submit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classify.cli import options
from classify.console import progress_bar, say
from classify.errors import ConfigError
from features_store.console import key_values

if TYPE_CHECKING:
    from classify.inference.model import Model, Prediction

_MAX_LINE = 2**16  # bytes; no path is longer


def predict(
    place: Annotated[
        Path, typer.Argument(metavar="RUN|BUNDLE", help="A run's folder, or a bundle.", show_default=False)
    ],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES|FOLDER|-", help="Images, folders, or - for paths on the standard input."),
    ],
    *,
    as_json: options.Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.", rich_help_panel="Output")] = False,
    max_failed: Annotated[
        str,
        typer.Option(help="Images that may fail, 5% or a number; above it exit code 3.", rich_help_panel="Output"),
    ] = "5%",
    device: options.Device = "auto",
    weights: options.WeightFiles = None,
    allow_download: options.Download = False,
) -> None:
    """Predict new images: calibrated probabilities and the decision, or why an image cannot be used.

    With --json each image is a line. The encoders are rebuilt from the passports of the run, and refused if their
    weights differ.
    """
    from classify.inference.bundle import open_model
    from classify.inference.model import random_weights
    from classify.inference.predictor import Predictor, image_paths
    from features_store.writer import allowed_failures

    allowed_failures(max_failed, 0)  # a wrong limit is found before the work
    if as_json and as_csv:
        raise ConfigError("--json and --csv exclude each other; give one")
    if "-" in images and len(images) > 1:
        raise ConfigError("- stands for paths on the standard input, and cannot be mixed with others")
    paths_given = None if images == ["-"] else image_paths(images)
    model = open_model(place)
    for warning in random_weights(model.passports):
        say(f"warning: {warning}", err=True)
    files = _weight_files(weights)
    predictor = Predictor(model, device=device, weights=files, allow_download=allow_download)
    if paths_given is None:
        n_failed, n_images = _print_predictions(model, predictor(_typed_lines()), as_json=as_json, as_csv=as_csv)
        if not n_images:
            raise ConfigError("no path came on the standard input; write one a line, or name the images instead of -")
    else:
        from tqdm import tqdm

        with tqdm(total=len(paths_given), unit=" images", delay=2, leave=False, disable=not sys.stderr.isatty()) as bar:
            found = predictor.many(paths_given, step=bar.update)
            n_failed, n_images = _print_predictions(model, found, as_json=as_json, as_csv=as_csv)
    if n_failed > allowed_failures(max_failed, n_images):
        raise typer.Exit(3)


def _typed_lines() -> Iterator[str]:
    """Yield the paths on the standard input as the file system has them; of a line without end only the beginning."""
    begins = True
    while line := sys.stdin.buffer.readline(_MAX_LINE):
        if begins and line.strip():
            yield os.fsdecode(line.rstrip(b"\r\n"))
        begins = line.endswith(b"\n")


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
        say(f"note: {failed} image{'s' if failed > 1 else ''} without a prediction", err=True)
    return failed, n_images


def _weight_files(pairs: list[str] | None) -> dict[str, Path]:
    found = {name: Path(file) for name, file in key_values("--weights", pairs or (), "resnet50=FILE").items()}
    if missing := [f"{name}={file}" for name, file in found.items() if not file.exists()]:
        raise ConfigError(f"--weights {missing[0]} names no file; write ENCODER=FILE with a file that exists")
    return found


def bundle(
    run: options.RunFolder,
    *,
    out: Annotated[Path, options.written("The bundle to write.", "--out", "-o")],
    force: options.Force = False,
) -> None:
    """Pack a run into one file that `classify predict` opens on another machine."""
    from classify.inference.bundle import write_bundle
    from classify.runs.folder import read_run

    names = write_bundle(read_run(run), out, force=force)
    say(f"{out}: {len(names)} files, {out.stat().st_size / 1024:.0f} KiB")


def explain(
    run: options.RunFolder,
    images: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGES...", help="Images. [default: the six surest of the test part]")
    ] = None,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Also run the deletion check of the maps on the test images.")
    ] = False,
    each_class: Annotated[
        int | None, typer.Option(min=1, help="Instead of the surest: the first N images of each class.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=8, help="Of --check: only the first N test images.")] = None,
    data: options.Pictures = None,
    weights: options.WeightFiles = None,
    allow_download: options.Download = False,
    force: options.Force = False,
) -> None:
    """Explain predictions: saliency of each encoder, share of each block, named features. Writes RUN/explanations."""
    from classify.explain.deletion_check import deletion_check, deletion_text
    from classify.explain.explainer import Explainer, check_explanations, chosen_images, explain_images, scored_images
    from classify.inference.predictor import image_paths
    from classify.runs.folder import read_run

    if images and each_class:
        raise ConfigError("--each-class chooses the images, and images were named; give one of the two")
    opened = read_run(run)
    check_explanations(opened, force=force)
    scored = scored_images(opened, data) if check or not images else {}
    paths = image_paths(images) if images else chosen_images(opened, scored, each_class=each_class)
    import torch

    torch.set_num_threads(1)  # hundreds of small passes: on a busy machine more threads mostly wait for each other
    explainer = Explainer(opened, weights=_weight_files(weights), allow_download=allow_download)
    checked = list(scored.values())[:limit] if check else []
    with progress_bar("images") as progress:
        done = iter(range(1, len(checked) + len(paths) + 1))

        def step() -> None:
            progress(next(done), len(checked) + len(paths))

        deletion = deletion_check(explainer, checked, step=step) if checked else None
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
    out: Annotated[Path | None, options.written("The CSV file to write.", "--out", "-o")] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check this file instead of writing one.", rich_help_panel="Output"),
    ] = None,
    template: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A CSV file whose ids give the order, like testset.csv.")
    ] = None,
    part: Annotated[
        options.Part, typer.Option(help="The part that is predicted.", rich_help_panel="Data")
    ] = options.Part.test,
    store: Annotated[
        str | None,
        typer.Option(
            help="Answer for all images of this store instead, like a test set without labels.", rich_help_panel="Data"
        ),
    ] = None,
    own_thresholds: Annotated[
        bool,
        typer.Option(
            "--thresholds/--at-half",
            help="Give a label from the threshold that the run chose on its validation part, not from 0.5.",
            rich_help_panel="Data",
        ),
    ] = False,
    force: options.Force = False,
) -> None:
    """Write predictions in MediaEval's form, read the file back, and score it again before it gets its name."""
    from classify.inference.submission import check_submission, plan_submission, write_submission
    from classify.json_file import check_new
    from classify.runs.folder import read_run

    if (out is None) == (check is None):
        raise ConfigError("give either --out FILE, to write one, or --check FILE, to check one")
    if out is not None:
        check_new(out, force=force)
    given: dict[str, Any] = {"store": store, "template": template, "part": part.value}
    plan = plan_submission([read_run(run) for run in runs], **given, own_thresholds=own_thresholds)
    found = check_submission(check, plan) if check else write_submission(plan, out or Path(), force=force)
    say(f"{check or out}: {len(plan.ids)} images, columns {', '.join(plan.titles)}")
    for task, one in found.items():
        scored = f"{one['metric']} {one['value']!r}, as in the run" if one["n_images"] else "no label to score by"
        say(f"  {task}: {scored} ({one['n_images']} labelled images)")
