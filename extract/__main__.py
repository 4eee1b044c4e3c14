"""Command line of stage 1: ``extract run``, ``check``, ``fit``, ``corpora``, ``encoders``."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from extract.fit.command import EXAMPLES as FIT_EXAMPLES
from extract.fit.command import fit
from extract.options import (
    CORPUS,
    OUTPUT,
    AsJson,
    CorpusName,
    Data,
    MaxFailed,
    Option,
    SkipUnreadable,
    corpus_place,
    key_values,
)
from features_store import console

if TYPE_CHECKING:
    from extract.corpora import Corpus, Dataset
    from extract.encoders import Encoder, EncoderSpec
    from extract.engines.ray import Cluster
    from extract.inputs.views import Views
    from extract.pipeline import Settings

CHECKS = "Checks"  # a panel of --help
app = typer.Typer(
    name="extract",
    help="Images to vectors of frozen networks, written once into a folder of dumps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_CHECK_EXAMPLES = """Examples:

extract check folder --data photos --page duplicates.html

extract check b-t4sa --data b-t4sa_imgs.tar --lists-only --json
"""
_CORPORA_EXAMPLES = """Examples:

extract corpora

extract corpora oasis union:oasis,gaped --json
"""


@app.command()
def run(
    corpus: CorpusName,
    data: Data = None,
    store: Annotated[Path | None, typer.Option(help="Folder of the dumps. Default: features/CORPUS.")] = None,
    profile: Annotated[str | None, typer.Option(help="A named set of encoders. Default: the corpus' own.")] = None,
    encoders: Annotated[str | None, typer.Option(help="Encoders, parted by commas, instead of a profile.")] = None,
    weights: Annotated[str, typer.Option(help="auto, random:SEED, or a checkpoint file of the one encoder.")] = "auto",
    option: Option = None,
    device: Annotated[str, typer.Option(help="auto (a GPU if one can be used), cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (CUDA float16), float32, bfloat16 or float16.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per forward pass: CPU 8, CUDA 128.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N images; others stay pending.")] = None,
    decoder: Annotated[str, typer.Option(help="torchvision, or pillow (the reference, slower).")] = "torchvision",
    views: Annotated[int, typer.Option(min=1, help="Vectors per image: itself, and V - 1 augmentations.")] = 1,
    policy: Annotated[str, typer.Option(help="Of these: mediaeval, flip-rotate-crop or strong.")] = "mediaeval",
    rows: Annotated[str | None, typer.Option(help="A:B, a shard of the corpus, for `features-store merge`.")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray (joins RAY_ADDRESS, or starts here).")] = "local",
    actors: Annotated[int, typer.Option(min=1, help="Processes of --engine ray; each holds all networks.")] = 2,
    actor_cpus: Annotated[float, typer.Option(min=0.01, help="CPUs reserved for each; keep it below 1.")] = 0.5,
    actor_gpus: Annotated[float | None, typer.Option(min=0, help="GPUs for each. Default: 1 if there are any.")] = None,
    compile_: Annotated[str, typer.Option("--compile", help="auto (where it pays), on, off: torch.compile.")] = "auto",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try images again that failed before.")] = False,
    max_failed: MaxFailed = "5%",
    skip_unreadable: SkipUnreadable = False,
    content: Annotated[bool, typer.Option("--content", help="Store the SHA-256 of every image in the index.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the blocks of a corpus, or go on with them where an earlier run ended."""
    from extract import pipeline
    from extract.corpora import find_corpus
    from extract.corpora.dataset import shard
    from extract.encoders import build_encoders
    from extract.encoders.weights import parse_weights
    from extract.engines.compilation import check_mode
    from extract.engines.ray import Cluster, check_engine, session
    from extract.inputs.images import find_decoder
    from extract.inputs.views import Views
    from features_store.schema import FAILURES
    from features_store.writer import FailureLimit

    found = find_corpus(corpus)
    chosen = _encoders(found, profile, encoders)
    wanted = parse_weights(weights)
    compiled = check_mode(compile_)
    check_engine(engine)
    if engine == "local":
        settings = _settings(device, precision, decoder, Views(views, policy))
    reading = found.read(corpus_place(found, data), key_values(option or []))
    reading = shard(reading, rows) if rows else reading
    networks = build_encoders(chosen, wanted, find_decoder(decoder).resizer)
    _warn(networks, reading)
    folder = store or Path("features") / f"{corpus}{f'.rows-{rows}' if rows else ''}".replace(":", "-")
    try:
        with session() if engine == "ray" else nullcontext():
            if engine == "ray":
                cluster = Cluster(actors, actor_cpus, actor_gpus)
                settings = _settings(device, precision, decoder, Views(views, policy), cluster)
            settings = replace(
                settings,
                batch_size=batch_size,
                limit=limit,
                compile=compiled,
                retry=FAILURES if retry_failed else (),
                content=content,
                max_failed=FailureLimit(max_failed),
                skip_unreadable=skip_unreadable,
                tell=partial(typer.echo, err=True),
            )
            summary = pipeline.run(reading, networks, folder, settings)
    except KeyboardInterrupt:
        again = shlex.join(["extract", *sys.argv[1:]])
        typer.echo(f"stopped; what was written stays. Go on with: {again}", err=True)
        raise SystemExit(130) from None
    if as_json:
        typer.echo(json.dumps({"store": str(folder), **summary.record()}))
    else:
        typer.echo("\n".join([*summary.lines(), f"store: {folder}"]))
    if summary.too_many_failed:
        raise typer.Exit(3)


@app.command(
    help="Check a corpus: counts, unreadable images, duplicates, groups split across parts, labels predictable from "
    "file names.",
    epilog=_CHECK_EXAMPLES,
)
def check(
    corpus: CorpusName,
    data: Data = None,
    option: Option = None,
    lists_only: Annotated[
        bool,
        typer.Option("--lists-only", help="Read no image: lists, labels, ids only.", rich_help_panel=CHECKS),
    ] = False,
    distance: Annotated[
        int,
        typer.Option(min=0, max=16, help="Bits of 64 that near-duplicates may differ in.", rich_help_panel=CHECKS),
    ] = 4,
    page: Annotated[
        Path | None,
        typer.Option(help="Write the duplicates as pictures to this HTML file.", rich_help_panel=OUTPUT),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the page.", rich_help_panel=OUTPUT)] = False,
    max_failed: MaxFailed = "5%",
    skip_unreadable: SkipUnreadable = False,
    as_json: AsJson = False,
) -> None:
    """Print what is found, and write the page of duplicates; exit code 3 if too many images cannot be used."""
    from extract.check import report as checking
    from extract.check.page import write_page
    from extract.corpora import find_corpus
    from extract.errors import CorpusError
    from extract.inputs.files import SkipUnreadable
    from features_store import ExistsError
    from features_store.disk import try_place
    from features_store.writer import FailureLimit

    if page is not None and lists_only:
        raise CorpusError("--page shows images, and --lists-only reads none; give one of them")
    if page is not None:
        if page.exists() and not force:
            raise ExistsError(f"{page} exists; nothing is overwritten without --force")
        try_place(page)
    limit, found = FailureLimit(max_failed), find_corpus(corpus)
    dataset = found.read(corpus_place(found, data), key_values(option or []))
    if skip_unreadable:
        dataset = replace(dataset, files=SkipUnreadable(dataset.files))
    shown = sys.stderr.isatty()
    done = checking.check(found, dataset, files=not lists_only, distance=distance, progress=shown)
    typer.echo(json.dumps(checking.record_of(done)) if as_json else "\n".join(checking.lines_of(done)))
    if page is not None:
        write_page(done, dataset.files, page, force=force)
    if limit.exceeded(done.n_failed, len(done.index)):
        typer.echo(f"error: {done.n_failed} of {len(done.index)} images cannot be used; see --max-failed", err=True)
        raise typer.Exit(3)


@app.command(epilog=_CORPORA_EXAMPLES)
def corpora(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only these. Default: all.", rich_help_panel=CORPUS),
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


@app.command()
def encoders(as_json: AsJson = False) -> None:
    """List the encoders and the profiles."""
    from extract.encoders import ENCODERS, PROFILES

    if as_json:
        typer.echo(json.dumps([_encoder_record(one) for one in ENCODERS.values()], indent=2))
        return
    for one in ENCODERS.values():
        blocks = ", ".join(f"{tap.name} {'x'.join(map(str, tap.shape))}" for tap in one.taps)
        typer.echo(f"{one.name:<20} {blocks:<32} {one.description} ({one.library} {one.architecture})")
    typer.echo("timm:NAME, open_clip:ARCH/TAG    any model of these libraries")
    for name, members in PROFILES.items():
        n_features = sum(ENCODERS[one].n_features() for one in members)
        typer.echo(f"profile {name}: {', '.join(members)} = {n_features} values")


app.command(epilog=FIT_EXAMPLES)(fit)


def _encoders(corpus: Corpus, profile: str | None, names: str | None) -> list[EncoderSpec]:
    from extract.encoders import OLD_PROFILES, PROFILES, find_encoders
    from extract.errors import EncoderError
    from features_store.errors import unknown_name

    if profile is not None and names is not None:
        msg = f"--profile {profile} and --encoders {names} exclude each other; give one"
        raise EncoderError(msg)
    if names is not None:
        return find_encoders(name.strip() for name in names.split(",") if name.strip())
    profile = OLD_PROFILES.get(profile or corpus.default_profile, profile or corpus.default_profile)
    if profile not in PROFILES:
        raise EncoderError(unknown_name("profile", profile, PROFILES))
    return find_encoders(PROFILES[profile])


def _settings(device: str, precision: str, decoder: str, views: Views, cluster: Cluster | None = None) -> Settings:
    """Choose the device, of this process or of the cluster's actors, and what belongs to it."""
    from extract.engines import autocast_dtype, choose_device, unused_gpu
    from extract.engines.ray import ask_cluster
    from extract.inputs.images import find_decoder
    from extract.pipeline import Settings
    from extract.settings import Circumstances

    chosen_decoder = find_decoder(decoder)
    shown = sys.stderr.isatty()
    how: dict[str, Any] = {"decoder": chosen_decoder.name, "resizer": chosen_decoder.resizer, "views": views}
    if cluster is not None:
        cluster, found = ask_cluster(cluster, device, precision)
        return Settings(Circumstances(**found, **how), cluster=cluster, progress=shown)
    chosen = choose_device(device)
    made = Circumstances(chosen.kind, autocast_dtype(chosen, precision), **how)
    unused = unused_gpu() if device == "auto" and chosen.kind == "cpu" else None
    return Settings(made, progress=shown, device=chosen, unused_gpu=unused)


def _warn(networks: list[Encoder], reading: Dataset) -> None:
    for note in reading.notes:
        typer.echo(f"note: {note}", err=True)
    for network in networks:
        for note in network.notes:
            typer.echo(f"note: {network.spec.name}: {note}", err=True)
        source = str(network.weights.get("source", ""))
        if source.startswith("random:"):
            name = network.spec.name
            typer.echo(f"warning: {name} has random weights ({source}): its vectors mean nothing", err=True)


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
