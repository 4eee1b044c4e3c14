"""Presets: the experiments of published systems, one TOML file each, with the numbers that the papers print.

::

    system, title               which publication, and what this experiment is
    corpus                      the reader that makes its index
    task, split, head, blocks   as of a run, and likewise refit, calibration and the table [set]
    [widths]                    by block, what the vectors hold: a number of values, or [channels, height, width]
    [paper]                     what the paper says: citation, metric, part, value, images by part, weights by block
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from classify.errors import ConfigError
from features_store.errors import unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser under its older name
    import tomli as tomllib

if TYPE_CHECKING:
    from classify.config import RunConfig

__all__ = ["Preset", "find_preset", "presets", "quick", "systems"]

QUICK_IMAGES, QUICK_EPOCHS, QUICK_RESAMPLES = 120, 3, 40
_ABOUT = ("system", "title", "corpus", "widths", "paper")


@dataclass(frozen=True)
class Preset:
    """One experiment of a publication.

    Parameters
    ----------
    name : str
        As on the command line.
    system : str
        The publication that it belongs to; ``classify reproduce`` takes it.
    title : str
        One line.
    corpus : str
        Name of the corpus, as ``extract`` knows it.
    run : mapping
        The keys of a run's TOML file.
    widths : mapping
        By block, the shape of one vector.
    paper : mapping
        The paper's result as data: ``citation``, ``metric``, ``part``, ``value``, and what it rests on: ``images`` by
        part and ``weights`` by block; ``also`` holds further numbers of the same experiment, ``note`` words.
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
        widths = {block: list(shape) for block, shape in self.widths.items()}
        about = {"name": self.name, "system": self.system, "title": self.title, "corpus": self.corpus}
        return {**about, "run": dict(self.run), "widths": widths, "paper": dict(self.paper)}


@cache
def presets() -> Mapping[str, Preset]:
    """Return every preset by name, sorted by system and name.

    Raises ConfigError.
    """
    folder = files("classify").joinpath("presets")
    found = [
        _preset(path.name.removesuffix(".toml"), tomllib.loads(path.read_text(encoding="utf-8")))
        for path in folder.iterdir()
        if path.name.endswith(".toml")
    ]
    return {one.name: one for one in sorted(found, key=lambda one: (one.system, one.name))}


def _preset(name: str, values: dict[str, Any]) -> Preset:
    lacking = [key for key in (*_ABOUT, "task", "head", "blocks") if key not in values]
    lacking += [f"paper.{key}" for key in ("citation", "metric", "part") if key not in values.get("paper", {})]
    if lacking:
        message = f"preset {name!r} lacks {', '.join(lacking)}"
        raise ConfigError(message)
    widths = {block: (size,) if isinstance(size, int) else tuple(size) for block, size in values["widths"].items()}
    if set(widths) != set(values["blocks"]):
        message = f"preset {name!r} gives the widths of {', '.join(widths)}, and its blocks are {values['blocks']}"
        raise ConfigError(message)
    run = {key: value for key, value in values.items() if key not in _ABOUT}
    about = {key: values[key] for key in ("system", "title", "corpus", "paper")}
    return Preset(name, run={**run, "preset": name}, widths=widths, **about)


def find_preset(name: str) -> Preset:
    """Look a preset up.

    Raises ConfigError.
    """
    if name not in presets():
        raise ConfigError(unknown_name("preset", name, presets()))
    return presets()[name]


def systems() -> dict[str, list[Preset]]:
    """Return the presets by the publication that they belong to."""
    found: dict[str, list[Preset]] = {}
    for one in presets().values():
        found.setdefault(one.system, []).append(one)
    return found


def quick(config: RunConfig) -> RunConfig:
    """Return a run cut down to seconds: few images, few epochs or trees; it shows that the run works, no more."""
    from classify.heads import head_options

    options = head_options(config.head, "single")
    lengths = {"epochs": QUICK_EPOCHS, "n_rounds": QUICK_EPOCHS}
    settings = {**config.settings, **{name: n for name, n in lengths.items() if name in options}}
    return replace(config, settings=settings, limit=QUICK_IMAGES, resamples=QUICK_RESAMPLES)
