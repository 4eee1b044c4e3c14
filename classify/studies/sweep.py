"""Many runs from one file: the cells of a grid, each done once, whatever interrupts it.

A cell's folder is named by a digest of everything that its numbers follow from (`classify.runs.identity`). So a cell
that is there is never computed again, and one whose data changed is another cell. All cells are checked before the
first runs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classify.config import RunConfig, check_out, load_config, read_toml
from classify.errors import ConfigError, RunError
from classify.heads import HEADS
from classify.runs.folder import REPORT
from classify.runs.identity import digest_of, run_identity
from classify.runs.layout import Layout, lay_out, unfitted_head
from features_store import open_store
from features_store.errors import AffectoryError

if TYPE_CHECKING:
    from features_store import Store

__all__ = ["MAX_RUNS", "Cell", "read_sweep", "sweep"]

MAX_RUNS = 10_000  # of one grid; three lists of a thousand values would be read for ever


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Parameters
    ----------
    config : RunConfig
        With its own folder, which holds nothing where the cell can't be run.
    digest : str
        Of everything that the run's numbers follow from, in hexadecimal.
    choices : mapping
        What distinguishes the cell: the values that the grid gives it.
    problem : str
        Why the cell can't be run; empty where it can.
    """

    config: RunConfig
    digest: str
    choices: Mapping[str, Any]
    problem: str = ""

    @property
    def done(self) -> bool:
        """Whether the run lies on disk; it appears whole or not at all."""
        return not self.problem and (self.config.folder / REPORT).is_file()


def sweep(
    cells: Sequence[Cell],
    *,
    notify: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> None:
    """Do every run that isn't there yet.

    Cells that can't be run are told of before the first run; a run that fails is told of, and the others go on.

    Raises RunError.
    """
    from classify.runs.train import run

    failed = [cell for cell in cells if cell.problem]
    missing = [cell for cell in cells if not (cell.done or cell.problem)]
    done = len(cells) - len(missing) - len(failed)
    tried = Counter(cell.config.task for cell in cells)
    if done:
        notify(f"{done} of {len(cells)} runs are there already")
    for cell in failed:
        notify(f"can't be run: {_named(cell)}: {cell.problem}")
    done += len(failed)
    for cell in missing:
        progress(done, len(cells))
        try:
            if not cell.done:
                run(cell.config, n_tried=tried[cell.config.task])
        except AffectoryError as error:
            if not cell.done:  # another process may have done it meanwhile
                failed.append(cell)
                notify(f"failed: {_named(cell)}: {error}")
        done += 1
    progress(done, len(cells))
    if failed:
        others = "the others are done" if len(failed) < len(cells) else "none is done"
        message = f"{len(failed)} of {len(cells)} runs failed, the first: {_named(failed[0])}; {others}"
        raise RunError(message)


def _named(cell: Cell) -> str:
    return ", ".join(f"{name} = {value}" for name, value in cell.choices.items())


def read_sweep(path: Path, *, out: Path | None = None, allow_split_groups: bool = False) -> list[Cell]:
    """Read the cells of a grid from a TOML file.

    Keys outside the ``[[grid]]`` tables, those of a run, hold for every cell. In a grid each key may have a list of
    values, and so may each option in its table ``set``; a value that is itself a list stands in a second list
    (``hidden = [[1000, 200], [256]]``). A grid gives every combination, several grids add up, and equal cells count
    once.

    Raises ConfigError, AffectoryError.
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
    values |= {"allow_split_groups": True} if allow_split_groups else {}
    stores, first = _Stores(), None
    cells: dict[str, Cell] = {}
    for choices in itertools.chain.from_iterable(_combinations(grid, path) for grid in grids):
        try:
            cell = _cell(_config(values, choices, path), choices, stores, folder)
        except AffectoryError as error:
            first = first or error
            cell = _broken(values, choices, str(error))
        cells.setdefault(cell.digest, cell)
    if first and all(cell.problem for cell in cells.values()):
        raise first
    return list(cells.values())


def _broken(fixed: Mapping[str, Any], choices: Mapping[str, Any], problem: str) -> Cell:
    """Return a cell that can't be run, with as much of its configuration as is sound."""
    store, task, head = (str(choices.get(name, fixed.get(name, "unknown"))) for name in ("store", "task", "head"))
    return Cell(
        RunConfig(store=store, task=task, head=head), digest_of({"choices": dict(choices)}), dict(choices), problem
    )


def _combinations(grid: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Yield every choice of a grid: keys of a run, and options of the head as ``set.NAME``."""
    if not isinstance(grid, dict):
        message = f"{path}: grid is {grid!r}; write [[grid]] with a key and its values on each line"
        raise ConfigError(message)
    if "out" in grid:
        message = f"{path}: out can't be part of a grid; each run has its own folder within the sweep's"
        raise ConfigError(message)
    options = grid.get("set", {})
    if not isinstance(options, dict):
        message = f"{path}: set is {options!r}; write a table of the head's options, like set = {{C = [0.1, 1]}}"
        raise ConfigError(message)
    flat = {k: v for k, v in grid.items() if k != "set"} | {f"set.{k}": v for k, v in dict(options).items()}
    lists = [_alternatives(key, value, path) for key, value in flat.items()]
    n_runs = math.prod(len(values) for values in lists)
    if n_runs > MAX_RUNS:
        message = f"{path}: the grid has {n_runs:,} runs; at most {MAX_RUNS:,} are done in one sweep: give fewer values"
        raise ConfigError(message)
    for values in itertools.product(*lists):
        yield dict(zip(flat, values, strict=True))


def _alternatives(key: str, value: Any, path: Path) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    if not value:
        message = f"{path}: {key} is an empty list, so the grid has no run; give it values, or leave it out"
        raise ConfigError(message)
    if key == "blocks" and not any(isinstance(item, list) for item in value):
        return [value]  # one list of names is one choice of blocks
    return value


def _config(fixed: Mapping[str, Any], choices: Mapping[str, Any], path: Path) -> RunConfig:
    options = {k.removeprefix("set."): v for k, v in choices.items() if k.startswith("set.")}
    keys = {k: v for k, v in choices.items() if not k.startswith("set.")}
    above = fixed.get("set", {})
    merged = {**above, **options} if isinstance(above, dict) else above  # `load_config` refuses what is no table
    return load_config(None, {**fixed, **keys, "set": merged}, where=str(path))


class _Stores:
    """Stores and laid-out tasks, each opened once for all cells."""

    def __init__(self) -> None:
        self._stores: dict[str, Store] = {}
        self._tasks: dict[Any, Layout] = {}

    def open(self, config: RunConfig) -> Layout:
        if config.store not in self._stores:
            self._stores[config.store] = open_store(Path(config.store).expanduser())
        store = self._stores[config.store]
        takes_maps = config.head in HEADS and HEADS[config.head].maps
        key: Any = (config.store, config.task, config.split, config.blocks, config.on_failed, takes_maps)
        key = (*key, repr(config.merge), config.limit, config.limit and config.seed, config.allow_split_groups)
        if key not in self._tasks:
            self._tasks[key] = lay_out(config, store)
        return self._tasks[key]


def _cell(config: RunConfig, choices: Mapping[str, Any], stores: _Stores, folder: Path | None) -> Cell:
    layout = stores.open(config)
    unfitted_head(config, layout)  # refuses options that are out of range
    digest = digest_of(run_identity(config, layout.store, layout.blocks, layout.data))
    place = (folder or Path("runs", config.corpus, "sweep")) / config.task / f"{config.head}-{digest[:12]}"
    return Cell(dataclasses.replace(config, out=str(place)), digest, dict(choices))
