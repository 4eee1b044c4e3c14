"""Presets: the experiments of published systems, one TOML file a system, with the numbers that the papers print.

::

    system = ...                keys above the first [[experiment]] hold for every experiment of the file
    [paper]                     what the paper says: citation, metric, part, value, images by part, weights by block
    [[experiment]]              adds its own keys; tables are merged key by key
    name, title                 as on the command line; one line
    corpus                      the reader that makes its index
    task, split, head, refit    as of a run, and likewise the table [set]
    [experiment.widths]         the blocks in order: a number of values, or [channels, height, width]
    [statements]                what the paper says, line by line, and what is done here, see `Statement`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from functools import cache
from importlib.resources import files
from statistics import mode
from typing import Any

from classify.errors import ConfigError
from classify.toml_text import tomllib
from features_store.errors import unknown_name

_ABOUT = ("name", "system", "title", "corpus", "widths", "paper")


@dataclass(frozen=True)
class Preset:
    """One experiment of a publication: the keys of a run, the shape of each block's vectors, the paper's result.

    *paper* holds ``citation``, ``metric``, ``part``, ``value``, and what the value rests on: ``images`` by part and
    ``weights`` by block; ``also`` holds further numbers of the same experiment, ``note`` words,
    ``explained`` how many images of each class the paper explains.
    """

    name: str
    system: str
    title: str
    corpus: str
    run: Mapping[str, Any]
    widths: Mapping[str, tuple[int, ...]]
    paper: Mapping[str, Any]

    @property
    def result(self) -> str:
        """The paper's result in words."""
        value = self.paper.get("value")
        return f"{self.paper['metric']} {value} ({self.paper['part']})" if value is not None else "none printed"

    def record(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {**asdict(self), "widths": {block: list(shape) for block, shape in self.widths.items()}}


@dataclass(frozen=True)
class Statement:
    """What a paper says of method, data, results or figures, and what is done here.

    *assumed* is what was taken where the paper leaves something open, *differs* why it is done otherwise; where both
    are empty, it is done as the paper says. *of* are patterns of the experiments whose numbers it
    concerns; none if it concerns no number.
    """

    id: str
    says: str
    here: str
    assumed: str = ""
    differs: str = ""
    of: tuple[str, ...] = ("*",)

    @property
    def state(self) -> str:
        """``agrees``, ``assumed`` or ``differs``."""
        return "differs" if self.differs else "assumed" if self.assumed else "agrees"

    def concerns(self, preset: str) -> bool:
        """Tell whether it is about an experiment, or about the paper as a whole."""
        return not self.of or any(fnmatch(preset, pattern) for pattern in self.of)


@cache
def presets() -> Mapping[str, Preset]:
    """Return every preset by name, sorted by system and name."""
    found = [preset for name, text in _texts().items() for preset in read_experiments(text, name)]
    return {one.name: one for one in sorted(found, key=lambda one: (one.system, one.name))}


def read_experiments(text: str, where: str) -> list[Preset]:
    """Read the experiments of one system."""
    shared = tomllib.loads(text)
    experiments = shared.pop("experiment", [])
    shared.pop("statements", None)
    return [_preset(_merged(shared, own), f"experiment {i} of {where}") for i, own in enumerate(experiments, 1)]


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one table over another, tables within them likewise."""
    tables = {key for key, value in above.items() if isinstance(value, Mapping) and isinstance(below.get(key), Mapping)}
    return {**below, **above, **{key: _merged(below[key], above[key]) for key in tables}}


def _preset(values: dict[str, Any], where: str) -> Preset:
    lacking = [key for key in (*_ABOUT, "task", "head") if key not in values]
    lacking += [f"paper.{key}" for key in ("citation", "metric", "part") if key not in values.get("paper", {})]
    if lacking:
        raise ConfigError(f"{where} lacks {', '.join(lacking)}")
    widths = {block: (size,) if isinstance(size, int) else tuple(size) for block, size in values["widths"].items()}
    run = {key: value for key, value in values.items() if key not in _ABOUT}
    run = {"set": {}, **run, "blocks": list(widths), "preset": values["name"]}
    return Preset(**{key: values[key] for key in _ABOUT} | {"run": run, "widths": widths})


def find_preset(name: str) -> Preset:
    """Look a preset up."""
    if name not in presets():
        raise ConfigError(unknown_name("preset", name, presets()))
    return presets()[name]


def systems() -> dict[str, list[Preset]]:
    """Return the presets by the publication that they belong to."""
    found: dict[str, list[Preset]] = {}
    for one in presets().values():
        found.setdefault(one.system, []).append(one)
    return found


@cache
def statements() -> Mapping[str, tuple[Statement, ...]]:
    """Return what each publication says, by the name of its system."""
    found = {}
    for name, text in _texts().items():
        values = tomllib.loads(text)
        listed = values.get("statements", {})
        try:
            rows = [Statement(id=key, **{**row, "of": tuple(row.get("of", "*"))}) for key, row in listed.items()]
        except (AttributeError, TypeError) as error:
            raise ConfigError(f"{name} has statements of another form: {error}") from error
        found[values["system"]] = tuple(rows)
    return found


def _texts() -> dict[str, str]:
    """Read the files of the presets."""
    paths = (path for path in files("classify").joinpath("presets").iterdir() if path.name.endswith(".toml"))
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(paths, key=lambda path: path.name)}


def citation(system: str) -> str:
    """Return the paper of a system: the one that most of its experiments are of."""
    return mode(one.paper["citation"] for one in systems()[system])
