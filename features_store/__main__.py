"""Command line of the store: look at dumps, check them, cut and join them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from features_store import console
from features_store.console import examples, local_path, new_file, on_one_line
from features_store.dump import find_dumps, open_store
from features_store.errors import FormatError, MismatchError
from features_store.schema import VECTOR_DTYPES

app = typer.Typer(
    name="features-store",
    help="Look at feature dumps, check them, cut and join them. A STORE is one dump (.h5), or a folder of dumps.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


choice = partial(typer.Option, rich_help_panel="What is taken")
source = partial(typer.Option, rich_help_panel="Where it comes from")
again = partial(typer.Option, rich_help_panel="Extracting again")
output = partial(typer.Option, rich_help_panel="What is written")
Dtype = Enum("Dtype", {name: name for name in VECTOR_DTYPES}, type=str)  # type: ignore[misc]

StorePath = Annotated[
    Path,
    typer.Argument(metavar="STORE", help="A dump (.h5), or a folder of dumps over one index.", parser=local_path),
]
Out = Annotated[
    Path,
    output("--out", "-o", metavar="FILE", help="The file to make; it appears whole or not at all.", parser=new_file),
]
Force = Annotated[bool, output("--force", help="Replace FILE if it is there.")]
Json = Annotated[bool, output("--json", help="Print one JSON object for programs.")]
Blocks = Annotated[list[str] | None, choice("--block", "-b", metavar="NAME", help="Only this block; can be repeated.")]


@app.callback()
def program(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version, and end.", is_eager=True, callback=console.version_option),
    ] = False,
) -> None:
    """Look at feature dumps, check them, cut and join them. A STORE is one dump (.h5), or a folder of dumps."""


# ---- looking and checking -------------------------------------------------------------------------------------------


@app.command(
    epilog=examples("features-store info features/emoji", "features-store info features/emoji --failed --json")
)
def info(
    store: StorePath,
    *,
    failed: Annotated[bool, output("--failed", help="List every failed image, not only the first 20.")] = False,
    as_json: Json = False,
) -> None:
    """Print the ids, labels, splits, blocks, sizes and passports of a store."""
    from features_store.summary import as_text, summarise

    summary = summarise(open_store(store))
    print(json.dumps(summary, indent=2, ensure_ascii=False) if as_json else as_text(summary, all_failures=failed))


@app.command(
    epilog=examples(
        "features-store verify features/emoji --write-list",
        "features-store verify features/emoji --recompute 20 --data /data/emoji",
    )
)
def verify(
    store: StorePath,
    *,
    recompute: Annotated[
        int, again(metavar="N", min=0, help="Also extract N random rows of each block again, and compare.")
    ] = 0,
    data: Annotated[
        list[str] | None, again(metavar="FOLDER", help="The images; of a union NAME=FOLDER for each member.")
    ] = None,
    network: Annotated[
        list[Path] | None,
        again(metavar="FOLDER", help="A network of `extract fit` that made a block; repeatable.", parser=local_path),
    ] = None,
    allow_download: Annotated[
        bool, again("--allow-download", help="Fetch missing weights from the hub that the passport names.")
    ] = False,
    write_list: Annotated[
        bool, output("--write-list", help="Then write the list of blocks, store.json, if nothing is wrong.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every vector of a store against its digest and its block's seal, and its labels, splits and groups.

    Exit code 0: good; 1: something is damaged or was changed; 2: a mistake in the command. What was checked, and what
    was not, is printed.
    """
    from features_store import verify as checking

    files, place = find_dumps(store), _place(data or [])
    opened = None
    try:
        opened = open_store(files)
        asked: dict[str, Any] = {"recompute": recompute, "data": place, "networks": network or []}
        report = checking.verify(opened, **asked, allow_download=allow_download)
    except (FormatError, MismatchError) as error:  # the files are there, so what is wrong with them is damage
        if opened is not None and isinstance(error, MismatchError):  # of what was asked for
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    facts = dataclasses.asdict(report)
    print(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else report.as_text())
    problems = report.problems()
    for sentence in problems:
        typer.echo(f"error: {sentence}", err=True)
    if problems:
        raise typer.Exit(1)
    if write_list:
        path = checking.write_list(opened, store)
        typer.echo(f"{path}: {len(opened.blocks)} block(s)", err=True)


def _place(data: list[str]) -> Path | dict[str, Path] | None:
    """Return one folder, or that of each member of a union."""
    if len(data) == 1 and ("=" not in data[0] or Path(data[0]).exists()):
        return Path(data[0])
    members = console.key_values("--data", data, "NAME=FOLDER for each member of a union")
    return {name: Path(path) for name, path in members.items()} or None


@app.command(
    epilog=examples("features-store diff mine.h5 theirs.h5", "features-store diff features/old features/new --json")
)
def diff(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A dump, or a folder of dumps.", parser=local_path)],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Another.", parser=local_path)],
    *,
    as_json: Json = False,
) -> None:
    """List what differs between two stores: ids, labels, splits, passports, rows.

    Exit code 0: nothing differs; 1: something does; 2: they cannot be compared.
    """
    from features_store import diff as comparing

    found = comparing.diff(open_store(first), open_store(second))
    lines = list(comparing.as_lines(found))
    typer.echo(
        json.dumps(found, indent=2, ensure_ascii=False)
        if as_json
        else "\n".join(map(on_one_line, lines or ["no difference"]))
    )
    if found:
        raise typer.Exit(1)


# ---- joining and cutting --------------------------------------------------------------------------------------------


@app.command(
    epilog=examples(
        "features-store merge part1.h5 part2.h5 -o whole.h5", "features-store merge a.h5 b.h5 --join -o common.h5"
    )
)
def merge(
    stores: Annotated[
        list[Path], typer.Argument(metavar="STORE...", help="Dumps, or folders of dumps.", parser=local_path)
    ],
    *,
    join: Annotated[bool, choice("--join", help="Keep the images that all have, aligned by id.")] = False,
    out: Out,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Merge dumps into one: other blocks of the same images, or other images of the same blocks.

    Parts that were cut out of one store come back in its order, whatever the order in which they are given; images of
    independent stores are ordered by id. Nothing is guessed: two dumps that contradict each other are refused.
    """
    from features_store.merge import merge as run

    done = run(stores, out, join=join, force=force)
    lines = [f"{out}: {done['n_images']:,} images, {len(done['blocks'])} block(s), by {done['mode']}"]
    if done["mode"] == "join":
        lines += [f"  {n:,} images of {path} are not in it" for path, n in done["lost"].items() if n]
    lines += [f"  {n:,} vectors of {name} are still pending" for name, n in done["blocks"].items() if n]
    if done["regrouped"]:
        lines.append(f"  {done['regrouped']:,} images have more companions: images that any input groups stay together")
    _tell(done, lines, as_json=as_json)


@app.command(
    epilog=examples(
        "features-store subset features/emoji --split default --part test -b clip.embedding -o test.h5",
        "features-store subset features/emoji --ids wanted.txt --sample 0.1 -o some.h5",
    )
)
def subset(
    store: StorePath,
    *,
    split: Annotated[str | None, choice(metavar="NAME", help="Only images of parts of this split.")] = None,
    part: Annotated[
        list[str] | None,
        choice(metavar="PART", help="train, validation, test, unused, or a fold's number; can be repeated."),
    ] = None,
    ids: Annotated[
        Path | None, choice(metavar="FILE", help="Only these ids: a text file, one a line.", parser=local_path)
    ] = None,
    sample: Annotated[
        float | None, choice(metavar="N", help="Of those, a random sample: a number, or a fraction below 1.")
    ] = None,
    seed: Annotated[int, choice(help="Of the sample: the same seed draws the same images.")] = 0,
    block: Blocks = None,
    no_blocks: Annotated[bool, choice("--no-blocks", help="Only ids, labels and splits.")] = False,
    out: Out,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Cut rows and blocks out of a store into a new dump; the images keep their order."""
    from features_store import subset as cutting
    from features_store.import_ import read_ids

    if (split is None) != (not part):
        raise MismatchError("--split and --part belong together, such as --split default --part train")
    opened = open_store(store)
    rows = np.arange(opened.n_images)
    if split is not None:
        rows = np.intersect1d(rows, cutting.rows_of_parts(opened.split(split), part or []))
    if ids is not None:
        rows = np.intersect1d(rows, cutting.rows_of_ids(opened, read_ids(ids)))
    if sample is not None:
        rows = cutting.sampled(rows, sample, seed=seed)
    done = cutting.subset(opened, out, rows=rows, blocks=[] if no_blocks else block, force=force)
    line = f"{out}: {done['n_images']:,} of {done['n_of']:,} images, blocks: {', '.join(done['blocks']) or 'none'}"
    _tell(done, [line], as_json=as_json)


@app.command(
    epilog=examples(
        "features-store relabel features/emoji new-labels.h5 -o labels.h5",
        "features-store relabel features/emoji new-labels.h5 -o features/emoji/index.h5 --force",
    )
)
def relabel(
    store: StorePath,
    labels: Annotated[
        Path,
        typer.Argument(metavar="LABELS", help="The store whose labels and splits are wanted.", parser=local_path),
    ],
    *,
    out: Out,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Put the labels and splits of one store onto the ids of another, in a dump without vectors."""
    from features_store.subset import relabel as run

    done = run(open_store(store), open_store(labels), out, force=force)
    lines = [f"{out}: {done['n_images']:,} images, {done['without']:,} of them unknown to {labels}"]
    lines += [f"  {done['lost']:,} images of {labels} are not in it"] if done["lost"] else []
    _tell(done, lines, as_json=as_json)


@app.command(
    epilog=examples(
        "features-store splits features/emoji -n cv5 --task polarity --folds 5 -o features/emoji/cv5.h5",
        "features-store splits features/emoji -n half --fractions 0.5 0.25 0.25 -o features/emoji/half.h5",
    )
)
def splits(
    store: StorePath,
    *,
    task: Annotated[str | None, choice(metavar="TASK", help="Stratify by it; unlabelled images are unused.")] = None,
    folds: Annotated[int | None, choice(metavar="K", help="K folds, instead of parts.")] = None,
    fractions: Annotated[
        tuple[float, float, float], choice(metavar="TRAIN VALIDATION TEST", help="Shares of the parts.")
    ] = (0.7, 0.15, 0.15),
    seed: Annotated[int, choice(help="The same seed makes the same split.")] = 0,
    name: Annotated[str, output("--name", "-n", metavar="SPLIT", help="Name of the new split.")],
    out: Out,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a split: stratified by a task, groups kept whole, in a dump of its own to lay beside the others.

    With --folds, each fold is also the test part of a split of its own, SPLIT.0, SPLIT.1 and so on, for `classify`.
    """
    from features_store.hdf5 import write_index
    from features_store.schema import Index
    from features_store.splits import make_split, parts_of_folds

    opened = open_store(store)
    labels = None if task is None else opened.task_labels(task)
    made = make_split(
        name, opened.n_images, labels=labels, groups=opened.groups, folds=folds, fractions=fractions, seed=seed
    )
    parts = [] if folds is None else parts_of_folds(made)
    new = {split.name: split for split in (made, *parts)}
    write_index(out, Index(opened.ids, splits=new, groups=opened.groups), force=force)
    counts = made.counts()
    lines = [f"{out}: split {name}: {', '.join(f'{part} {count:,}' for part, count in counts.items())}"]
    if parts:
        lines.append(
            f"  {parts[0].name} to {parts[-1].name}: one fold for test, the next for validation, the rest train"
        )
    facts = {"path": str(out), "name": name, "kind": made.kind, "counts": counts, "seed": seed}
    _tell({**facts, "parts": [split.name for split in parts]}, lines, as_json=as_json)


# ---- other formats --------------------------------------------------------------------------------------------------


@app.command(
    "import",
    epilog=examples(
        "features-store import features/b-t4sa yt8m.npz --key rgb -n yt8m.rgb -o features/b-t4sa/yt8m.rgb.h5",
        "features-store import repacked.h5 -o plain.h5",
    ),
)
def import_(
    store: StorePath,
    matrix: Annotated[
        Path | None,
        typer.Argument(metavar="MATRIX", help=".npy, .npz, .csv, .mat (version 7.3) or .h5", parser=local_path),
    ] = None,
    *,
    key: Annotated[
        str | None, source(metavar="NAME", help="Which array of the file; which block's columns of a .csv.")
    ] = None,
    ids_key: Annotated[str | None, source(metavar="NAME", help="Which array or column holds the ids.")] = None,
    ids: Annotated[
        Path | None, source(metavar="FILE", help="The ids: a text file, one a line.", parser=local_path)
    ] = None,
    passport: Annotated[
        Path | None,
        source(metavar="FILE", help="JSON: what is known about how the vectors were made.", parser=local_path),
    ] = None,
    name: Annotated[str | None, output("--name", "-n", metavar="BLOCK", help="Name of the new block.")] = None,
    dtype: Annotated[Dtype | None, output(help="Type in which the vectors are stored.")] = None,
    out: Out,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Bring a matrix with ids into a store, as a block beside the others.

    Rows are found by id. Images without a row become "missing"; rows of unknown images are left out and counted.
    Without MATRIX, STORE itself, one dump, is written anew as FILE: a dump that another program chunked or compressed
    becomes plain again, with everything that is in it, and is verified.
    """
    from features_store.import_ import import_matrix, read_ids, read_passport, rewrite

    if matrix is None:
        plain = rewrite(store, out, force=force)
        facts: dict[str, Any] = {"path": str(out), "n_images": plain.n_images, "blocks": list(plain.blocks)}
        line = f"{out}: the dump {store} rewritten and verified: {plain.n_images:,} images, "
        _tell(facts, [line + f"blocks: {', '.join(plain.blocks) or 'none'}"], as_json=as_json)
        return
    if name is None:
        raise MismatchError(f"{matrix} becomes a block of the store, which needs a name: --name BLOCK")
    done = import_matrix(
        open_store(store),
        matrix,
        out,
        name=name,
        key=key,
        ids_key=ids_key,
        ids=None if ids is None else read_ids(ids),
        passport=None if passport is None else read_passport(passport),
        dtype=None if dtype is None else dtype.value,
        force=force,
    )
    _tell(done, _import_lines(done, out, matrix), as_json=as_json)


def _import_lines(done: Mapping[str, Any], out: Path, matrix: Path) -> list[str]:
    from features_store.import_ import first_rounded

    counts, shape = dict(done["counts"]), " x ".join(map(str, done["shape"]))
    written, n_images = counts.pop("written"), sum(done["counts"].values())
    lines = [
        f"{out}: block {done['block']} of {shape} {done['dtype']} values: {written:,} of {n_images:,} images got a "
        f"vector from the {done['n_rows']:,} rows of {matrix}"
    ]
    words = {
        "missing": "no row, or an empty one",
        "non finite": "a value that is not finite, or too large for the type",
    }
    lines += [f"  {n:,} images have {words.get(state, 'no vector')}: marked {state}" for state, n in counts.items()]
    if done["unknown"]:
        lines.append(f"  {done['unknown']:,} rows have an id that is not in the store, and were left out")
    if done["rounded"]:
        what = f"whole numbers beyond {first_rounded(done['dtype']):,} were rounded to those that {done['dtype']} has"
        lines.append(f"  {done['rounded']:,} {what}")
    return lines


@app.command(
    epilog=examples(
        "features-store export features/emoji -b clip.embedding -o clip.npz",
        "features-store export features/emoji -b clip.embedding -o clip.parquet",
    )
)
def export(
    store: StorePath,
    *,
    block: Blocks = None,
    view: Annotated[int, choice(help="Which view of the images.")] = 0,
    out: Out,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write ids, labels, splits and vectors for programs that read no HDF5; the ending of FILE decides the format.

    .npz: loads with numpy, allow_pickle=False. .csv: one column for each value. .parquet: needs pyarrow. Vectors of
    failed rows are NaN, or empty cells.
    """
    from features_store.export import export as run

    done = run(open_store(store), out, blocks=block, view=view, force=force)
    lines = [f"{out}: {done['n_images']:,} images, blocks: {', '.join(done['blocks']) or 'none'}"]
    if done["failed"]:
        lines.append(f"  {done['failed']:,} vectors are NaN or empty: their rows failed or are pending")
    _tell(done, lines, as_json=as_json)


def _tell(facts: Mapping[str, Any], lines: list[str], *, as_json: bool) -> None:
    typer.echo(json.dumps(facts, ensure_ascii=False) if as_json else "\n".join(map(on_one_line, lines)))


def main() -> None:
    """Run the command line."""
    console.main(app)


if __name__ == "__main__":
    main()
