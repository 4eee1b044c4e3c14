"""Writing a store for programs that read no HDF5: .npz, .csv, and .parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import importlib
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store.align import PIECE_BYTES
from features_store.atomic import atomic_write
from features_store.console import progress_bar
from features_store.errors import FormatError, StoreError
from features_store.schema import Status
from features_store.store import Block, Store


def export(
    store: Store, path: Path | str, *, blocks: Sequence[str] | None = None, view: int = 0, force: bool = False
) -> dict[str, Any]:
    """Write ids, labels, splits and the vectors of one view.

    The ending decides the format. ``.npz``: the arrays have the names that they have in a dump (``images/id``,
    ``blocks/BLOCK/vectors``...), and load with ``allow_pickle=False``. ``.csv``: a column for the id, one for each task
    (``task:NAME``) and split (``split:NAME``), one for each value (``BLOCK:NUMBER``). ``.parquet``: a list a block.
    Vectors of rows that failed or are pending (`failed` of them) are NaN, or empty cells.
    """
    target = Path(path)
    chosen = [store.block(name) for name in (store.blocks if blocks is None else dict.fromkeys(blocks))]
    for block in chosen:
        if not 0 <= view < block.shape[1]:
            raise FormatError(f"block {block.name!r} has views 0 to {block.shape[1] - 1}; got {view}")
    writers = {".npz": _npz, ".csv": _csv, ".parquet": _parquet}
    if target.suffix.lower() not in writers:
        raise FormatError(
            f"{target} cannot be written: its name ends in {target.suffix!r}; valid: {', '.join(writers)}"
        )
    with atomic_write(target, force=force) as temporary:
        total = store.n_images * (len(chosen) if target.suffix.lower() == ".npz" else 1)
        with progress_bar(total, f"writing {target.name}", unit="row") as advance:
            writers[target.suffix.lower()](store, chosen, view, temporary, advance)
    failed = sum(int((block.status[:, view] != Status.WRITTEN).sum()) for block in chosen)
    names = [block.name for block in chosen]
    return {"path": str(target), "n_images": store.n_images, "blocks": names, "failed": failed}


Advance = Callable[[int], object]


def _pieces(blocks: Sequence[Block], view: int, n_images: int) -> Iterator[tuple[slice, list[NDArray[Any]]]]:
    """Iterate over all rows, a few MiB at a time; failed rows are NaN."""
    widest = max([block.n_features * block.dtype.itemsize for block in blocks], default=PIECE_BYTES // 1000)
    step = max(1, PIECE_BYTES // widest)
    states = [block.status[:, view] for block in blocks]
    for start in range(0, n_images, step):
        rows = np.arange(start, min(start + step, n_images))
        vectors = [np.empty((len(rows), block.n_features), dtype=block.dtype) for block in blocks]
        for block, buffer, status in zip(blocks, vectors, states, strict=True):
            block.gather(rows, buffer, view=view)
            buffer[status[rows] != Status.WRITTEN] = np.nan
        yield slice(start, start + len(rows)), vectors


# ---- npz ------------------------------------------------------------------------------------------------------------


def _npz(store: Store, blocks: Sequence[Block], view: int, path: Path, advance: Advance) -> None:
    small: dict[str, NDArray[Any]] = {"images/id": store.ids}
    if store.groups is not None:
        small["images/group"] = store.groups
    for name, labels in store.labels.items():
        small[f"labels/{name}"] = labels.values
        small[f"labels/{name}/classes"] = np.array(labels.task.classes)
    for name, split in store.splits.items():
        small[f"splits/{name}"] = split.values
    for block in blocks:
        small[f"blocks/{block.name}/status"] = np.asarray(block.status[:, view])
        small[f"blocks/{block.name}/passport"] = np.array(json.dumps(block.passport, ensure_ascii=False))
        if block.names is not None:
            small[f"blocks/{block.name}/names"] = np.array(block.names)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in small.items():
            with _member(archive, name) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
        for block in blocks:
            shape = (block.shape[0], *block.item_shape)
            with _member(archive, f"blocks/{block.name}/vectors") as member:
                header = {"descr": block.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for rows, (vectors,) in _pieces([block], view, store.n_images):
                    member.write(vectors.data)
                    advance(rows.stop - rows.start)


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    # A fixed date, so that equal stores give equal bytes.
    return archive.open(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True)


# ---- tables ---------------------------------------------------------------------------------------------------------


def _columns(store: Store) -> dict[str, list[Any]]:
    """Lay labels and splits out as columns of words and numbers; None where there is none."""
    columns: dict[str, list[Any]] = {}
    for name, labels in store.labels.items():
        columns.update(labels.task.form.columns(f"task:{name}", labels.values, labels.task.classes))
    for name, split in store.splits.items():
        named = {value: split.name_of(value).removeprefix("fold ") for value in np.unique(split.values).tolist()}
        columns[f"split:{name}"] = [named[value] if value >= 0 else None for value in split.values.tolist()]
    return columns


def _csv(store: Store, blocks: Sequence[Block], view: int, path: Path, advance: Advance) -> None:
    columns = _columns(store)
    titles = [f"{block.name}:{name}" for block in blocks for name in (block.names or range(block.n_features))]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", *columns, *titles])
        for rows, vectors in _pieces(blocks, view, store.n_images):
            # As text a number of its own type has the fewest digits that give it back.
            cells = [np.where(np.isnan(one), "", one.astype(str)) for one in vectors]
            left = zip(store.ids[rows].tolist(), *(column[rows] for column in columns.values()), strict=True)
            for row, known in enumerate(left):
                table.writerow([*known, *(cell for one in cells for cell in one[row].tolist())])
            advance(rows.stop - rows.start)


def _parquet(store: Store, blocks: Sequence[Block], view: int, path: Path, advance: Advance) -> None:
    try:
        pa = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise StoreError(
            "writing .parquet needs the package pyarrow; install it (pip install pyarrow), or export to .npz"
        ) from error
    columns = {"id": store.ids.tolist(), **_columns(store)}
    whole = {name: pa.array(column) for name, column in columns.items()}  # here, so that each has one type throughout
    writer = None
    try:
        for rows, vectors in _pieces(blocks, view, store.n_images):
            table = {name: column[rows] for name, column in whole.items()}
            for block, values in zip(blocks, vectors, strict=True):
                flat = pa.array(values.astype(np.float32).reshape(-1))
                table[block.name] = pa.FixedSizeListArray.from_arrays(flat, block.n_features)
            piece = pa.table(table, schema=writer.schema if writer else None)
            writer = writer or parquet.ParquetWriter(path, piece.schema)
            writer.write_table(piece)
            advance(rows.stop - rows.start)
    finally:
        if writer is not None:
            writer.close()
