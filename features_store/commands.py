"""The commands that make dumps out of others, and compare them; `__main__` puts them on the command line."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from features_store.errors import FormatError, MismatchError, StoreError
from features_store.store import Store, open_store


def local_path(text: str) -> Path:
    """Return a path that the user typed; a URL is none, and would lose a slash as one."""
    if "://" in text:
        raise StoreError(
            f"{text} is a URL, and only local paths are read; fetch it first"
        )  # no ValueError: that would be worded by the library that calls this
    return Path(text)


def _out_path(text: str) -> Path:
    path = local_path(text)
    if text.endswith(("/", os.sep)) or path.is_dir():
        raise StoreError(f"--out {text} names a folder; give the name of the file to make, such as {path / 'new.h5'}")
    return path


StorePath = Annotated[
    Path,
    typer.Argument(metavar="STORE", help="A dump (.h5), or a folder of dumps over one index.", parser=local_path),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", metavar="FILE", help="The file to make; it appears whole or not at all.", parser=_out_path
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]
Blocks = Annotated[
    list[str] | None, typer.Option("--block", "-b", metavar="NAME", help="Only this block; can be given again.")
]


def merge(
    stores: Annotated[
        list[Path], typer.Argument(metavar="STORE...", help="Dumps, or folders of dumps.", parser=local_path)
    ],
    *,
    out: Out,
    join: Annotated[bool, typer.Option("--join", help="Keep the images that all have, aligned by id.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Merge dumps into one: other blocks of the same images, or other images of the same blocks.

    Parts that were cut out of one store come back in its order, whatever the order in which they are given; images of
    independent stores are ordered by id. Nothing is guessed: two dumps that contradict each other are refused.

    Example: features-store merge part1.h5 part2.h5 -o whole.h5
    """
    from features_store.merge import merge as run

    done = run(stores, out, join=join, force=force)
    lines = [f"{out}: {done.n_images:,} images, {len(done.blocks)} block(s), by {done.mode}"]
    lines += [f"  {n:,} images of {path} are not in it" for path, n in done.lost.items() if n and done.mode == "join"]
    lines += [f"  {n:,} vectors of {name} are still pending" for name, n in done.blocks.items() if n]
    _tell(done, lines, as_json=as_json)


def subset(  # noqa: PLR0913 - each is an option of the command line
    store: StorePath,
    *,
    out: Out,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Only images of parts of this split.")] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="train, validation, test, unused, or a fold's number; can be given again."),
    ] = None,
    ids: Annotated[Path | None, typer.Option(metavar="FILE", help="Only these ids: a text file, one a line.")] = None,
    sample: Annotated[
        float | None, typer.Option(metavar="N", help="Of those, a random sample: a number, or a fraction below 1.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample: the same seed draws the same images.")] = 0,
    block: Blocks = None,
    no_blocks: Annotated[bool, typer.Option("--no-blocks", help="Only ids, labels and splits.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Cut rows and blocks out of a store into a new dump; the images keep their order.

    Example: features-store subset features/emoji --split default --part test -b clip.embedding -o test.h5
    """
    from features_store import subset as cutting

    opened = open_store(store)
    rows = _rows(opened, split, part or [], ids)
    if sample is not None:
        rows = cutting.sampled(rows, sample, seed=seed)
    done = cutting.subset(opened, out, rows=rows, blocks=[] if no_blocks else block, force=force)
    line = f"{out}: {done.n_images:,} of {done.n_of:,} images, blocks: {', '.join(done.blocks) or 'none'}"
    _tell(done, [line], as_json=as_json)


def _rows(store: Store, split: str | None, parts: list[str], ids: Path | None) -> Any:
    from features_store.import_ import read_ids
    from features_store.subset import rows_of_ids, rows_of_parts

    if (split is None) != (not parts):
        raise MismatchError("--split and --part belong together, such as --split default --part train")
    rows = np.arange(store.n_images)
    if split is not None:
        rows = np.intersect1d(rows, rows_of_parts(store.split(split), parts))
    if ids is not None:
        rows = np.intersect1d(rows, rows_of_ids(store, read_ids(ids)))
    return rows


def diff(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A dump, or a folder of dumps.", parser=local_path)],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Another.", parser=local_path)],
    *,
    as_json: Json = False,
) -> None:
    """Say what differs between two stores: ids, labels, splits, passports, rows.

    Exit code 0: nothing differs; 1: something does; 2: they cannot be compared.

    Example: features-store diff mine.h5 theirs.h5
    """
    from features_store.diff import as_lines, difference

    found = difference(open_store(first), open_store(second))
    lines = list(as_lines(found))
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else "\n".join(lines or ["no difference"]))
    if found:
        raise typer.Exit(1)


def relabel(
    store: StorePath,
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="The store whose labels and splits are wanted.", parser=local_path)
    ],
    *,
    out: Out,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Put the labels and splits of one store onto the ids of another, in a dump without vectors.

    Example: features-store relabel features/emoji new-labels.h5 -o features/emoji/index.h5 --force
    """
    from features_store.subset import relabel as run

    done = run(open_store(store), open_store(labels), out, force=force)
    lines = [f"{out}: {done.n_images:,} images, {done.without:,} of them unknown to {labels}"]
    lines += [f"  {done.lost:,} images of {labels} are not in it"] if done.lost else []
    _tell(done, lines, as_json=as_json)


def import_(  # noqa: PLR0913 - each is an option of the command line
    store: StorePath,
    matrix: Annotated[
        Path | None,
        typer.Argument(metavar="MATRIX", help=".npy, .npz, .csv, .mat (version 7.3) or .h5", parser=local_path),
    ] = None,
    *,
    out: Out,
    name: Annotated[str | None, typer.Option("--name", "-n", metavar="BLOCK", help="Name of the new block.")] = None,
    key: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which array of the file; which block's columns of a .csv.")
    ] = None,
    ids_key: Annotated[str | None, typer.Option(metavar="NAME", help="Which array or column holds the ids.")] = None,
    ids: Annotated[Path | None, typer.Option(metavar="FILE", help="The ids: a text file, one a line.")] = None,
    passport: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON: what is known about how the vectors were made.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(metavar="TYPE", help="float16 or float32.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Bring a matrix with ids into a store, as a block beside the others.

    Rows are found by id. Images without a row become "missing"; rows of unknown images are left out and counted.
    Without MATRIX, STORE itself is written anew as FILE: a dump that another program chunked or compressed becomes
    plain again, with everything that is in it, after it was verified.

    Example: features-store import features/b-t4sa yt8m.npz --key rgb -n yt8m.rgb -o features/b-t4sa/yt8m.rgb.h5
    """
    from features_store.import_ import MatrixFile, import_matrix, read_ids, read_passport

    if matrix is None:
        _rewrite(open_store(store), out, force=force, as_json=as_json)
        return
    if name is None:
        raise MismatchError(f"{matrix} becomes a block of the store, which needs a name: --name BLOCK")
    source = MatrixFile(matrix, key, ids_key, None if ids is None else read_ids(ids))
    known = None if passport is None else read_passport(passport)
    done = import_matrix(open_store(store), source, out, name=name, passport=known, dtype=dtype, force=force)
    lines = [f"{out}: block {name}: {', '.join(f'{n:,} {state}' for state, n in done.counts.items())}"]
    lines += [f"  {done.unknown:,} of {done.n_rows:,} rows have an id that is not in the index"] if done.unknown else []
    _tell(done, lines, as_json=as_json)


def _rewrite(store: Store, out: Path, *, force: bool, as_json: bool) -> None:
    from features_store.subset import subset as cut
    from features_store.verify import verify_with_bar

    problems = verify_with_bar(store).problems()
    if problems:
        raise FormatError(f"{problems[0]}; a damaged dump is not written anew")
    done = cut(store, out, force=force)
    _tell(done, [f"{out}: {done.n_images:,} images, blocks: {', '.join(done.blocks) or 'none'}"], as_json=as_json)


def export(
    store: StorePath,
    *,
    out: Out,
    block: Blocks = None,
    view: Annotated[int, typer.Option(help="Which view of the images.")] = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write ids, labels, splits and vectors for programs that read no HDF5; the ending of FILE decides the format.

    .npz: loads with numpy, allow_pickle=False. .csv: one column for each value. .parquet: needs pyarrow. Vectors of
    failed rows are NaN, or empty cells.

    Example: features-store export features/emoji -b clip.embedding -o clip.npz
    """
    from features_store.export import export as run

    done = run(open_store(store), out, blocks=block, view=view, force=force)
    lines = [f"{out}: {done.n_images:,} images, blocks: {', '.join(done.blocks) or 'none'}"]
    lines += [f"  {done.failed:,} vectors are NaN or empty: their rows failed or are pending"] if done.failed else []
    _tell(done, lines, as_json=as_json)


def splits(
    store: StorePath,
    *,
    name: Annotated[str, typer.Option("--name", "-n", metavar="SPLIT", help="Name of the new split.")],
    out: Out,
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="Stratify by it; unlabelled images are unused.")
    ] = None,
    folds: Annotated[int | None, typer.Option(metavar="K", help="K folds, instead of parts.")] = None,
    fractions: Annotated[
        tuple[float, float, float], typer.Option(metavar="TRAIN VALIDATION TEST", help="Shares of the parts.")
    ] = (0.7, 0.15, 0.15),
    seed: Annotated[int, typer.Option(help="The same seed makes the same split.")] = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a split: stratified by a task, groups never parted, in a dump of its own to lay beside the others.

    With --folds, each fold is also the test part of a split of its own, SPLIT.0, SPLIT.1 and so on, for `classify`.

    Example: features-store splits features/emoji -n cv5 --task polarity --folds 5 -o features/emoji/cv5.h5
    """
    from features_store.dump import write_index
    from features_store.schema import Index
    from features_store.splits import make_split, parts_of_folds
    from features_store.summary import split_counts

    opened = open_store(store)
    labels = None if task is None else opened.task_labels(task)
    made = make_split(
        name, opened.n_images, labels=labels, groups=opened.groups, folds=folds, fractions=fractions, seed=seed
    )
    each = [] if folds is None else parts_of_folds(made)
    found = {one.name: one for one in (made, *each)}
    write_index(out, Index(opened.ids, splits=found, groups=opened.groups), force=force)
    counts = split_counts(made)
    lines = [f"{out}: split {name}: {', '.join(f'{part} {count:,}' for part, count in counts.items())}"]
    if each:
        lines.append(f"  {each[0].name} to {each[-1].name}: one fold for test, the next for validation, the rest train")
    facts = {"path": str(out), "name": name, "kind": made.kind, "counts": counts, "seed": seed}
    _tell({**facts, "parts": [one.name for one in each]}, lines, as_json=as_json)


def _tell(done: Any, lines: list[str], *, as_json: bool) -> None:
    facts = dataclasses.asdict(done) if dataclasses.is_dataclass(done) and not isinstance(done, type) else done
    typer.echo(json.dumps(facts, default=str, ensure_ascii=False) if as_json else "\n".join(lines))


COMMANDS: dict[str, Callable[..., None]] = {
    "merge": merge,
    "subset": subset,
    "diff": diff,
    "relabel": relabel,
    "import": import_,
    "export": export,
    "splits": splits,
}
