"""Many runs from one file: the cells of a grid, each done once, whatever interrupts it.

A cell's folder is named by a digest of everything that its numbers follow from: the settings with their defaults, the
blocks' passports and content, and the labelled images of each part. So a cell that is there is never computed again,
and one whose data changed is another cell.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classify.config import RunConfig, check_out, load_config, read_toml
from classify.errors import ConfigError, RunError
from classify.heads import HEADS, head_options
from classify.inputs.tasks import TaskRows
from classify.layout import lay_out
from classify.runs import REPORT
from features_store import open_store
from features_store.errors import AffectoryError

if TYPE_CHECKING:
    from features_store import Store

__all__ = ["Cell", "read_sweep", "sweep"]


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Parameters
    ----------
    config : RunConfig
        With its own folder.
    digest : str
        Of everything that the run's numbers follow from, in hexadecimal.
    choices : mapping
        What distinguishes the cell: the values that the grid gives it.
    images : str
        Digest of blocks and of the rows of each part: cells that share it can be trained in one scan.
    """

    config: RunConfig
    digest: str
    choices: Mapping[str, Any]
    images: str

    @property
    def done(self) -> bool:
        """Whether the run lies on disk; it appears whole or not at all."""
        return (self.config.folder / REPORT).is_file()


def sweep(
    cells: Sequence[Cell],
    *,
    notify: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> None:
    """Do every run that isn't there yet.

    Networks on the same images that share their batches (``order_seed`` given, ``project = "never"``) are trained in
    one scan. A run that fails is told of, and the others go on.

    Parameters
    ----------
    cells : sequence of Cell
    notify : callable
        Called with a line of text when there is something to tell.
    progress : callable
        Called with the number of runs done, and of all runs.

    Raises
    ------
    RunError
        Some runs failed; the others are done.
    """
    from classify.experiment import run, train_together

    missing = [cell for cell in cells if not cell.done]
    done, failed = len(cells) - len(missing), []
    if done:
        notify(f"{done} of {len(cells)} runs are there already")
    for group in _groups(missing):
        progress(done, len(cells))
        try:
            heads = train_together([cell.config for cell in group]) if len(group) > 1 else [None]
            for cell, head in zip(group, heads, strict=True):
                if not cell.done:
                    run(cell.config, fitted=head)
        except AffectoryError as error:
            lacking = [cell for cell in group if not cell.done]  # another process may have done it meanwhile
            failed += lacking
            if lacking:
                notify(f"failed: {_named(lacking)}: {error}")
        done += len(group)
    progress(done, len(cells))
    if failed:
        message = f"{len(failed)} of {len(cells)} runs failed, the first: {_named(failed[:1])}; the others are done"
        raise RunError(message)


def _named(group: Sequence[Cell]) -> str:
    choices = group[0].choices
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    return ", ".join(f"{name} = {value}" for name, value in choices.items()) + more


def _groups(cells: Iterable[Cell]) -> Iterator[list[Cell]]:
    """Put cells that can be trained in one scan together; any other is alone."""
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        settings = cell.config.settings
        shares = cell.config.head in ("mlp", "moe") and settings.get("order_seed") is not None and not cell.config.refit
        key: Any = cell.digest
        if shares and settings.get("project") == "never":
            alike = ("order_seed", "batch_size", "shuffle", "standardize")
            key = (cell.images, *(settings.get(name) for name in alike))
        groups.setdefault(key, []).append(cell)
    yield from groups.values()


def read_sweep(path: Path, *, out: Path | None = None) -> list[Cell]:
    """Read the cells of a grid from a TOML file.

    Keys outside the ``[[grid]]`` tables, those of a run, hold for every cell. In a grid each key may have a list of
    values, and so may each option in its table ``set``; a value that is itself a list stands in a second list
    (``hidden = [[1000, 200], [256]]``). A grid gives every combination, several grids add up, and equal cells count
    once.

    Parameters
    ----------
    path : Path
    out : Path or None
        Folder of the runs. None: the file's own ``out``, or ``runs/CORPUS/sweep``.

    Returns
    -------
    list of Cell
        In the order of the file.

    Raises
    ------
    ConfigError
        The file can't be read, a key is unknown, or there is no grid.
    AffectoryError
        A store can't be opened, or a task can't be run.
    """
    values = read_toml(path)
    grids = values.pop("grid", None)
    if not isinstance(grids, list) or not grids:
        message = f"{path} has no [[grid]] table, so there is nothing to combine"
        raise ConfigError(message)
    folder = out or (Path(values["out"]) if isinstance(values.get("out"), str) else None)
    if out is None and folder is not None:
        check_out(str(folder), path)
    values.pop("out", None)
    stores = _Stores()
    cells: dict[str, Cell] = {}
    for choices in itertools.chain.from_iterable(_combinations(grid, path) for grid in grids):
        config = _config(values, choices, path)
        cell = _cell(config, choices, stores, folder)
        cells.setdefault(cell.digest, cell)
    return list(cells.values())


def _combinations(grid: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Yield every choice of a grid: keys of a run, and options of the head as ``set.NAME``."""
    if not isinstance(grid, dict):
        message = f"{path}: grid is {grid!r}; write [[grid]] with a key and its values on each line"
        raise ConfigError(message)
    if "out" in grid:
        message = f"{path}: out can't be part of a grid; each run has its own folder within the sweep's"
        raise ConfigError(message)
    options = grid.get("set", {})
    flat = {k: v for k, v in grid.items() if k != "set"} | {f"set.{k}": v for k, v in dict(options).items()}
    lists = [_alternatives(key, value) for key, value in flat.items()]
    for values in itertools.product(*lists):
        yield dict(zip(flat, values, strict=True))


def _alternatives(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    if key == "blocks" and not any(isinstance(item, list) for item in value):
        return [value]  # one list of names is one choice of blocks
    return value


def _config(fixed: Mapping[str, Any], choices: Mapping[str, Any], path: Path) -> RunConfig:
    options = {k.removeprefix("set."): v for k, v in choices.items() if k.startswith("set.")}
    keys = {k: v for k, v in choices.items() if not k.startswith("set.")}
    try:
        return load_config(None, {**fixed, **keys, "set": {**dict(fixed.get("set", {})), **options}})
    except ConfigError as error:
        message = f"{path}: {str(error).replace('the command line: ', '')}"
        raise ConfigError(message) from error


class _Stores:
    """Stores and laid-out tasks, each opened once for all cells."""

    def __init__(self) -> None:
        self._stores: dict[str, Store] = {}
        self._tasks: dict[Any, tuple[tuple[str, ...], TaskRows]] = {}

    def open(self, config: RunConfig) -> tuple[Store, tuple[str, ...], TaskRows]:
        if config.store not in self._stores:
            self._stores[config.store] = open_store(Path(config.store).expanduser())
        store = self._stores[config.store]
        takes_maps = config.head in HEADS and HEADS[config.head].maps
        key: Any = (config.store, config.task, config.split, config.blocks, config.on_failed, takes_maps)
        key = (*key, repr(config.merge), config.limit, config.limit and config.seed)
        if key not in self._tasks:
            layout = lay_out(config, store)
            self._tasks[key] = layout.blocks, layout.data
        return store, *self._tasks[key]


def _cell(config: RunConfig, choices: Mapping[str, Any], stores: _Stores, folder: Path | None) -> Cell:
    store, blocks, data = stores.open(config)
    defaults = {k: v for k, v in head_options(config.head, data.task.kind).items() if k != "random_state"}
    asked = dataclasses.asdict(config) | {"blocks": blocks, "settings": {**defaults, **config.settings}}
    for name in ("store", "out"):
        del asked[name]
    vectors = {name: [store.block(name).digest, store.block(name).stored_seal.hex()] for name in blocks}
    rows = {name: hashlib.sha256(part.rows.tobytes()).hexdigest() for name, part in data.parts.items()}
    labels = {name: part.digest for name, part in data.parts.items()}
    images = _digest({"index": store.index_digest, "vectors": vectors, "rows": rows})
    digest = _digest({"config": asked, "images": images, "labels": labels})
    place = (folder or Path("runs", config.corpus, "sweep")) / config.task / f"{config.head}-{digest[:12]}"
    return Cell(dataclasses.replace(config, out=str(place)), digest, dict(choices), images)


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
