"""Command line of stage 1: ``extract run``, ``check``, ``fit``, ``corpora``, ``encoders``."""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from extract.fit.command import EXAMPLES as FIT_EXAMPLES
from extract.fit.command import fit
from extract.options import (
    AsJson,
    CorpusName,
    Data,
    MaxFailed,
    Option,
    SkipUnreadable,
    corpus_place,
    in_output,
    panel,
    with_settings,
)
from features_store import console

if TYPE_CHECKING:
    from extract.corpora import Corpus
    from extract.encoders import EncoderSpec

in_checks, in_encoders, in_scale_out = map(panel, ("Checks", "Encoders", "Scale-out"))
app = typer.Typer(
    name="extract",
    help="Images to vectors of frozen networks, written once into a folder of dumps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=console.version_option, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


@app.command(
    epilog=console.examples(
        "extract run folder --data photos --store features/photos --profile fusion",
        "extract run csv --data labels.csv --option single=mood --encoders clip_vit_l14,lowlevel --device cuda:0",
    )
)
@with_settings
def run(
    corpus: CorpusName,
    data: Data = None,
    option: Option = None,
    profile: Annotated[str | None, in_encoders(help="Named set of encoders. Default: the corpus' own.")] = None,
    encoders: Annotated[str | None, in_encoders(help="Comma-separated encoders; replaces --profile.")] = None,
    size: Annotated[
        int | None, in_encoders(help="Squash images to squares of so many pixels. Default: each network's own input.")
    ] = None,
    weights: Annotated[str, in_encoders(metavar="auto|random:SEED|FILE", help="FILE: of the one encoder.")] = "auto",
    store: Annotated[
        Path | None, in_output(help="Folder of the dumps. Default: features/CORPUS.", parser=console.local_path)
    ] = None,
    as_json: AsJson = False,
    rows: Annotated[str | None, in_scale_out(metavar="A:B", help="A shard, for `features-store merge`.")] = None,
    **settings: Any,
) -> None:
    """Extract features for every image of a corpus; resumes an interrupted run."""
    from extract.corpora import find_corpus
    from extract.pipeline import extract

    try:
        summary = extract(
            corpus,
            data=corpus_place(find_corpus(corpus), data),
            encoders=encoders,
            profile=profile,
            size=size,
            store=store,
            weights=weights,
            options=console.key_values("--option", option or [], "KEY=VALUE"),
            rows=rows,
            progress=sys.stderr.isatty(),
            echo=partial(typer.echo, err=True),
            **settings,
        )
    except KeyboardInterrupt:
        again = shlex.join(["extract", *sys.argv[1:]])
        typer.echo(f"stopped; what was written stays. Resume with: {again}", err=True)
        raise SystemExit(130) from None
    typer.echo(json.dumps(summary.record()) if as_json else str(summary))
    if summary.too_many_failed:
        raise typer.Exit(3)


@app.command(
    help="Check a corpus: counts, unreadable images, duplicates, groups split across parts, labels predictable from "
    "file names.",
    epilog=console.examples(
        "extract check folder --data photos --page duplicates.html",
        "extract check b-t4sa --data b-t4sa_imgs.tar --lists-only --json",
    ),
)
def check(
    corpus: CorpusName,
    data: Data = None,
    option: Option = None,
    lists_only: Annotated[
        bool,
        in_checks("--lists-only", help="Read no image: lists, labels, ids only."),
    ] = False,
    distance: Annotated[
        int,
        in_checks(min=0, max=16, help="Bits of 64 that near-duplicates may differ in."),
    ] = 4,
    page: Annotated[
        Path | None,
        in_output(metavar="FILE", help="Write the duplicates as pictures to this HTML file.", parser=console.new_file),
    ] = None,
    force: Annotated[bool, in_output("--force", help="Replace the page.")] = False,
    max_failed: MaxFailed = "5%",
    skip_unreadable: SkipUnreadable = False,
    as_json: AsJson = False,
) -> None:
    """Print what is found, and write the page of duplicates; exit code 3 if too many images cannot be used."""
    from extract.check import report as checking
    from extract.check.page import write_page
    from extract.corpora import find_corpus
    from extract.errors import CorpusError
    from extract.inputs.files import SkipUnreadable as SkippingFiles
    from features_store import ExistsError
    from features_store.atomic import recover
    from features_store.disk import try_place
    from features_store.writer import allowed_failures

    if page is not None and lists_only:
        raise CorpusError("--page shows images, and --lists-only reads none; give one of them")
    if page is not None:
        recover(page)
        if page.exists() and not force:
            raise ExistsError(f"{page} exists; nothing is overwritten without --force")
        try_place(page)
    allowed_failures(max_failed, 0)
    found = find_corpus(corpus)
    dataset = found.read(corpus_place(found, data), console.key_values("--option", option or [], "KEY=VALUE"))
    if skip_unreadable:
        dataset = replace(dataset, files=SkippingFiles(dataset.files))
    shown = sys.stderr.isatty()
    done = checking.check(found, dataset, files=not lists_only, distance=distance, progress=shown)
    typer.echo(json.dumps(done) if as_json else "\n".join(checking.lines_of(done)))
    if page is not None:
        write_page(done, dataset.index, dataset.files, page, force=force)
    n_failed, n_images = sum(map(len, done["failed"].values())), done["counts"]["images"]
    if n_failed > allowed_failures(max_failed, n_images):
        typer.echo(f"error: {n_failed} of {n_images} images cannot be used; see --max-failed", err=True)
        raise typer.Exit(3)


@app.command(epilog=console.examples("extract corpora", "extract corpora oasis union:oasis,gaped --json"))
def corpora(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only these. Default: all."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the corpora: how to get each, its licence, its tasks and its options."""
    from extract.corpora import CORPORA, find_corpus

    listed = [find_corpus(name) for name in names or CORPORA]
    if as_json:
        typer.echo(json.dumps([_corpus_record(one) for one in listed], indent=2))
        return
    for one in listed:
        typer.echo(f"{one.name}: {one.title}\n  {one.obtain}")
        typer.echo(f"  licence: {one.licence}; default profile: {one.default_profile}")
        for name, text in one.tasks.items():
            typer.echo(f"  task {name}: {text}")
        for key, option in one.options.items():
            typer.echo(f"  --option {key}={option.default}  {option.help}")


@app.command(
    epilog=console.examples(
        "extract encoders",
        "extract encoders --json",
        "extract run folder --data photos --encoders resnet50,timm:convnext_tiny.fb_in1k,clip_vit_l14@transformer:mean",
    )
)
def encoders(as_json: AsJson = False) -> None:
    """List the encoders, their blocks with the values per image, and the profiles."""
    from extract.encoders import ENCODERS, PROFILES

    if as_json:
        typer.echo(json.dumps([_encoder_record(one) for one in ENCODERS.values()], indent=2))
        return
    for one in ENCODERS.values():
        blocks = ", ".join(f"{tap.name} {'x'.join(map(str, tap.shape))}" for tap in one.taps)
        typer.echo(f"{one.name:<20} {blocks:<32} {one.description} ({one.library} {one.architecture})")
    typer.echo("timm:NAME, open_clip:ARCH/TAG    any model of these libraries")
    typer.echo("fit:FOLDER                       a network that `extract fit` trained")
    typer.echo("ENCODER~SIZE                     images squashed to squares of another size, as --size")
    typer.echo("ENCODER@MODULE[:POOLING]         any layer; pooling is mean, max, cls or map")
    for name, members in PROFILES.items():
        n_features = sum(ENCODERS[one].n_features() for one in members)
        typer.echo(f"profile {name}: {', '.join(members)} = {n_features} values")


app.command(epilog=FIT_EXAMPLES)(fit)


@app.command(hidden=True)
def shard() -> None:
    """Extract what the parent process describes on the standard input; ends when that process does."""
    from extract.pipeline import extract

    def end_with_parent() -> None:
        while os.read(0, 4096):
            pass
        os._exit(130)

    call = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_parent, daemon=True).start()
    summary = extract(**call, echo=partial(typer.echo, err=True))
    typer.echo(json.dumps(summary.record()))


def _corpus_record(one: Corpus) -> dict[str, Any]:
    texts = ("name", "title", "obtain", "licence", "citation", "default_data", "default_profile")
    return {
        **{key: getattr(one, key) for key in texts},
        "tasks": dict(one.tasks),
        "splits": dict(one.splits),
        "defects": list(one.defects),
        "options": {key: {"default": option.default, "help": option.help} for key, option in one.options.items()},
    }


def _encoder_record(one: EncoderSpec) -> dict[str, Any]:
    from extract.encoders import PROFILES

    return {
        "name": one.name,
        "description": one.description,
        "library": one.library,
        "architecture": one.architecture,
        "needs_hub": one.needs_hub,
        "blocks": {one.block(tap.name): list(tap.shape) for tap in one.taps},
        "profiles": [name for name, members in PROFILES.items() if one.name in members],
    }


def main() -> None:
    """Run the command line."""
    console.main(app)


if __name__ == "__main__":
    main()
