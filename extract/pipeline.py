"""The algorithm of extraction, from the name of a corpus to a store of vectors; read this page first.

1. The corpus' reader gives a dataset: an index (ids, labels, splits) and the place of the bytes of each image.
2. ``index.h5`` of the store is written, or compared with that index.
3. Each encoder gets one block file per tap. A file is created whole; each row of it is pending, written or failed.
4. An engine (threads of this process, or actors of Ray) makes what is pending: it reads and decodes each image once,
   runs every encoder over it in batches, and gives the vectors to one writer.
5. A block in which nothing is pending, and not too much failed, is sealed.

Whatever stops a run between two of these steps, the same command resumes it, and the bytes are those of a run that was
never stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from extract.blocks import open_blocks
from extract.corpora import Dataset, find_corpus
from extract.corpora.dataset import Corpus, Place, shard
from extract.encoders import OLD_PROFILES, PROFILES, Encoder, EncoderSpec, at_size, build_encoders, find_encoders
from extract.encoders.weights import parse_weights
from extract.engines import Engine
from extract.engines.local import LocalEngine
from extract.engines.ray import RayEngine
from extract.errors import EncoderError
from extract.index import ContentDigests, check_or_write_index, has_digests
from extract.inputs.files import SkipUnreadable
from extract.progress import Summary, Timings, progress_bar, summarize
from extract.settings import RunSettings
from extract.shards import add_shards, choose_devices, extract_shards
from features_store.errors import unknown_name


def extract(
    corpus: str,
    *,
    data: Place | None = None,
    encoders: str | Iterable[str] | None = None,
    profile: str | None = None,
    size: int | None = None,
    store: Path | str | None = None,
    weights: str = "auto",
    options: Mapping[str, object] | None = None,
    rows: str | None = None,
    **settings: Any,
) -> Summary:
    """Extract features for every image of a corpus, as ``extract run`` does; resumes an interrupted run.

    Parameters
    ----------
    corpus : str
        A name of `CORPORA`: "folder" for one folder per class, "list", "csv", or a published corpus.
    data : path-like, optional
        Folder, tar, zip or URL of the images; for a union a mapping with one for each member. None = the corpus' own
        place, if it has one.
    encoders : str or iterable of str, optional
        Names of `ENCODERS`, ``timm:NAME``, ``open_clip:ARCH/TAG``, ``fit:FOLDER``, or
        ``ENCODER@MODULE[:POOLING]`` for any layer.
    profile : str, optional
        Instead of `encoders`, a name of `PROFILES`. None = that of the corpus.
    size : int, optional
        Edge of the squares that the networks take, pixels; images lose their aspect. None = each network's own input.
    store : path-like, optional
        Folder of the dumps. None = ``features/CORPUS``.
    weights : str
        "auto" (pretrained), "random:SEED", or a checkpoint file of the one encoder.
    options : mapping, optional
        Of the corpus, as ``--option KEY=VALUE``.
    rows : str, optional
        "A:B", a shard of the corpus.
    **settings
        The other options of ``extract run`` (device, precision, views, limit, ...), fields of
        `extract.settings.RunSettings`.

    Returns
    -------
    Summary
        Counts by block and state, the time of each part, what failed and why; ``print`` shows it as text.

    Raises
    ------
    ExtractError
        If corpus, encoder, device or engine are wrong or missing (a mistake, found before the work begins), or the
        machine fails in the middle (`MachineError`; repeat the call to resume).
    MismatchError
        If the store is of another index, or a block in it was made in another way.

    Examples
    --------
    >>> import extract
    >>> summary = extract.extract("folder", data="photos", profile="fusion")    # doctest: +SKIP
    >>> print(summary.images_per_second, summary.n_failed)    # doctest: +SKIP
    """
    how = RunSettings(**settings)
    devices = choose_devices(how, rows)
    how = replace(how, device=devices[0])
    found = find_corpus(corpus)
    names = [at_size(name, size) for name in name_encoders(found, encoders, profile)]
    wanted = parse_weights(weights)
    specs = find_encoders(names)
    engine = make_engine(how)
    dataset = found.read(data, options)
    dataset = shard(dataset, rows) if rows else dataset
    networks = build_encoders(specs, wanted, how.resizer)
    for note in notes_on(dataset, networks):
        how.echo(note)
    if store is None:
        store = Path("features") / f"{corpus}{f'.rows-{rows}' if rows else ''}".replace(":", "-")
    store, shards = Path(store), []
    if len(devices) > 1:
        check_or_write_index(store, dataset)
        names = [name for name in names if not all(_dumps(store, find_encoders([name])[0]).values())]
        call = {**settings, "corpus": corpus, "data": data, "encoders": names, "weights": weights, "options": options}
        blocks = [block for spec in specs for block in _dumps(store, spec)]
        shards = extract_shards(call, devices, store, blocks, len(dataset.index), how)
    return add_shards(run(dataset, networks, store, how, engine), shards)


def run(
    dataset: Dataset, encoders: list[Encoder], store: Path, settings: RunSettings, engine: Engine | None = None
) -> Summary:
    """Make the blocks of all encoders over one dataset, or resume them."""
    check_or_write_index(store, dataset)
    timings = Timings()
    if settings.skip_unreadable:
        dataset = replace(dataset, files=SkipUnreadable(dataset.files))
    # Digests that are known are compared though new ones are not wanted: a block may not be of other pictures.
    digests = ContentDigests(dataset, store) if settings.content or has_digests(store) else None
    images = dataset
    if digests is not None:
        images = replace(dataset, files=digests.elsewhere() if settings.engine == "ray" else digests)
    with ExitStack() as stack:
        engine = stack.enter_context(engine or make_engine(settings))
        sinks = open_blocks(store, dataset.index, encoders, engine, settings, timings, stack)
        needed = np.logical_or.reduce([sink.needed.any(axis=1) for sink in sinks])  # (n_images,)
        chosen = settings.rows(len(dataset.index))
        rows = chosen[needed[chosen]]
        if len(rows):
            step = stack.enter_context(progress_bar(len(rows), timings, show=settings.progress))
            engine.run(images, rows, [sink for sink in sinks if sink.needed[rows].any()], timings, step)
        for sink in sinks:
            sink.finish()
        notes = [f"{n} images were used although {remark}" for remark, n in engine.remarks.items()]
        if digests is not None:
            with timings.part("content"):
                asked = chosen if settings.content else rows
                notes += digests.finish(asked.tolist(), rows.tolist())
        return summarize(
            str(store),
            [writer for sink in sinks for writer in sink.writers.values()],
            {name: failure for sink in sinks for name, failure in sink.failures().items()},
            settings.max_failed,
            timings,
            n_images=len(dataset.index),
            n_done=len(rows),
            n_decoders=engine.n_decoders,
            n_readers=engine.n_readers,
            notes=notes,
        )


def make_engine(settings: RunSettings) -> Engine:
    """Return the engine that the settings name."""
    return RayEngine(settings) if settings.engine == "ray" else LocalEngine(settings)


def _dumps(store: Path, spec: EncoderSpec) -> dict[str, bool]:
    """Return the blocks of an encoder, and whether the store has each."""
    return {block: (store / f"{block}.h5").exists() for block in (spec.block(tap.name) for tap in spec.taps)}


def name_encoders(corpus: Corpus, encoders: str | Iterable[str] | None, profile: str | None) -> list[str]:
    """Return the names of encoders that were given, or those of a profile."""
    if profile is not None and encoders is not None:
        raise EncoderError(f"--profile {profile} and --encoders {encoders} exclude each other; give one")
    if encoders is not None:
        names = encoders.split(",") if isinstance(encoders, str) else encoders
        return [name.strip() for name in names if name.strip()]
    profile = profile or corpus.default_profile
    profile = OLD_PROFILES.get(profile, profile)
    if profile not in PROFILES:
        raise EncoderError(unknown_name("profile", profile, PROFILES))
    return list(PROFILES[profile])


def notes_on(dataset: Dataset, encoders: Iterable[Encoder]) -> list[str]:
    """Word what a user should know of a dataset and of weights, one line each."""
    lines = [f"note: {note}" for note in dataset.notes]
    for encoder in encoders:
        name, source = encoder.spec.name, str(encoder.weights.get("source", ""))
        lines += [f"note: {name}: {note}" for note in encoder.notes]
        if source.startswith("random:"):
            lines.append(f"warning: {name} has random weights ({source}): its vectors mean nothing")
    return lines
