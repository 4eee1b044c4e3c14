"""A sweep: many runs from one file, the points of a grid, each done once, also after an interruption.

The folder of a point is named by a digest of everything that decides its numbers (`classify.runs.identity`). So a point
that was run is never run again, and one whose data changed is another point. All points are checked before the first
runs.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classify.config import RunConfig, check_out, load_config, user_path
from classify.errors import ConfigError, RunError
from classify.heads import HEADS
from classify.runs.identity import digest_of, run_identity
from classify.runs.layout import Layout, lay_out, unfitted_head
from classify.runs.report_json import REPORT
from classify.toml_text import read_toml
from features_store import open_store
from features_store.atomic import recover
from features_store.errors import AffectoryError

if TYPE_CHECKING:
    from features_store import Store

MAX_RUNS = 10_000  # of one grid: three lists of a thousand values would never end


@dataclass(frozen=True)
class GridPoint:
    """One run of a sweep."""

    config: RunConfig  # with a folder of its own
    digest: str  # of everything that decides the run's numbers, in hexadecimal
    choices: Mapping[str, Any]  # the values that the grid gives it
    problem: str = ""  # why it cannot be run; empty where it can

    @property
    def done(self) -> bool:
        """Whether the run lies on disk; it appears whole or not at all."""
        return not self.problem and (self.config.folder / REPORT).is_file()

    def __str__(self) -> str:
        return ", ".join(f"{name} = {value}" for name, value in self.choices.items())


def sweep(
    points: Sequence[GridPoint],
    *,
    notify: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> None:
    """Do every run that is missing; one that fails is reported, and the others are done."""
    from classify.runs.train import run

    for place in {point.config.folder.parent: point.config.folder for point in points if not point.problem}.values():
        recover(place)  # the run that a killed sweep made last
    failed = [point for point in points if point.problem]
    missing = [point for point in points if not (point.done or point.problem)]
    n_there, errors = len(points) - len(missing) - len(failed), []
    n_runs = Counter(point.config.task for point in points)
    if n_there:
        notify(f"{n_there} of {len(points)} runs are there already")
    for point in failed:
        notify(f"cannot be run: {point}: {point.problem}")
    for n_done, point in enumerate(missing, start=n_there + len(failed)):
        progress(n_done, len(points))
        try:
            if not point.done:
                run(point.config, n_tried=n_runs[point.config.task])
        except AffectoryError as error:
            if not point.done:  # another process may have done it meanwhile
                failed.append(point)
                errors.append(error)
                notify(f"failed: {point}: {error}")
    progress(len(points), len(points))
    if failed:
        others = "the others are done" if len(failed) < len(points) else "none is done"
        raise RunError(f"{len(failed)} of {len(points)} runs failed, the first: {failed[0]}; {others}") from (
            errors[0] if errors else None
        )


def read_sweep(path: Path, *, out: Path | None = None, allow_split_groups: bool = False) -> list[GridPoint]:
    """Read the points of a sweep from a TOML file.

    Keys outside the ``[[grid]]`` tables, those of a run, hold for every point. In a grid each key may have a list of
    values, and so may each option in its table ``set``; a value that is itself a list stands in a second list
    (``hidden = [[1000, 200], [256]]``). A grid gives every combination, several grids add up, and equal points count
    once.
    """
    values = read_toml(path)
    grids = values.pop("grid", None)
    if not isinstance(grids, list) or not grids:
        raise ConfigError(f"{path} has no [[grid]] table, so there is nothing to combine")
    folder = out or (Path(values["out"]) if isinstance(values.get("out"), str) else None)
    if out is None and folder is not None:
        check_out(str(folder), path)
    values.pop("out", None)
    values |= {"allow_split_groups": True} if allow_split_groups else {}
    layouts, first = _Layouts(), None
    points: dict[str, GridPoint] = {}
    for choices in itertools.chain.from_iterable(_combinations(grid, path) for grid in grids):
        try:
            point = _point(_config(values, choices, path), choices, layouts, folder)
        except AffectoryError as error:
            first = first or error
            store, task, head = (str({**values, **choices}.get(name, "unknown")) for name in ("store", "task", "head"))
            point = GridPoint(RunConfig(store, task, head), digest_of({"choices": choices}), choices, str(error))
        points.setdefault(point.digest, point)
    if first and all(point.problem for point in points.values()):
        raise first
    return list(points.values())


def _combinations(grid: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Yield every choice of a grid: keys of a run, and options of the head as ``set.NAME``."""
    if not isinstance(grid, dict):
        raise ConfigError(f"{path}: grid is {grid!r}; write [[grid]] with a key and its values on each line")
    if "out" in grid:
        raise ConfigError(f"{path}: out cannot be part of a grid; each run has its own folder within the sweep's")
    options = grid.get("set", {})
    if not isinstance(options, dict):
        raise ConfigError(
            f"{path}: set is {options!r}; write a table of the head's options, like set = {{C = [0.1, 1]}}"
        )
    flat = {k: v for k, v in grid.items() if k != "set"} | {f"set.{k}": v for k, v in options.items()}
    lists = [_alternatives(key, value, path) for key, value in flat.items()]
    n_runs = math.prod(len(values) for values in lists)
    if n_runs > MAX_RUNS:
        raise ConfigError(
            f"{path}: the grid has {n_runs:,} runs; at most {MAX_RUNS:,} are done in one sweep: give fewer values"
        )
    for values in itertools.product(*lists):
        yield dict(zip(flat, values, strict=True))


def _alternatives(key: str, value: Any, path: Path) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    if not value:
        raise ConfigError(f"{path}: {key} is an empty list, so the grid has no run; give it values, or leave it out")
    if key == "blocks" and not any(isinstance(item, list) for item in value):
        return [value]  # one list of names is one choice of blocks
    return value


def _config(fixed: Mapping[str, Any], choices: Mapping[str, Any], path: Path) -> RunConfig:
    options = {k.removeprefix("set."): v for k, v in choices.items() if k.startswith("set.")}
    keys = {k: v for k, v in choices.items() if not k.startswith("set.")}
    shared = fixed.get("set", {})
    merged = {**shared, **options} if isinstance(shared, dict) else shared  # `load_config` refuses any other type
    return load_config(None, {**fixed, **keys, "set": merged}, where=str(path))


class _Layouts:
    """Stores and laid-out tasks, each opened once for all points."""

    def __init__(self) -> None:
        self._stores: dict[str, Store] = {}
        self._layouts: dict[Any, Layout] = {}

    def open(self, config: RunConfig) -> Layout:
        if config.store not in self._stores:
            self._stores[config.store] = open_store(user_path(config.store))
        takes_maps = config.head in HEADS and HEADS[config.head].maps
        key: Any = (config.store, config.task, config.split, config.blocks, config.on_failed, takes_maps)
        key = (*key, repr(config.merge), config.limit, config.limit and config.seed, config.allow_split_groups)
        if key not in self._layouts:
            self._layouts[key] = lay_out(config, self._stores[config.store])
        return self._layouts[key]


def _point(config: RunConfig, choices: Mapping[str, Any], layouts: _Layouts, folder: Path | None) -> GridPoint:
    layout = layouts.open(config)
    unfitted_head(config, layout)  # refuses options that are out of range
    digest = digest_of(run_identity(config, layout))
    place = (folder or Path("runs", config.corpus, "sweep")) / config.task / f"{config.head}-{digest[:12]}"
    return GridPoint(replace(config, out=str(place)), digest, choices)
