"""What one run is made of: a frozen record, from a TOML file, from command-line flags, or from both."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from classify.errors import ConfigError
from classify.toml_text import read_toml, toml_key, toml_value
from features_store.errors import unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser under its older name
    import tomli as tomllib

__all__ = ["RunConfig", "check_out", "dump_config", "load_config", "parse_settings", "read_toml", "shared_store"]


@dataclass(frozen=True)
class RunConfig:
    """One head on one task of one store.

    Parameters
    ----------
    store : str
        A dump, or a folder of dumps over one index.
    task : str
        Name of a task in the store.
    head : str
        Name of a head; ``classify heads`` lists them.
    blocks : tuple of str
        Blocks to concatenate, in this order. Empty: every block whose vectors have one dimension, by name.
    split : str
        Name of a split in the store.
    seed : int
        Everything random in the run follows from it.
    settings : mapping
        Options of the head, by name (the table ``[set]`` of the file, ``--set`` on the command line).
    on_failed : {"drop", "error"}
        What happens to images that have a label but lack a vector in one of the blocks.
    resamples : int
        Bootstrap resamples behind each interval, at least 20.
    calibration : {"temperature", "isotonic", "none"}
        What is fitted to the probabilities of the validation part; the run's own probabilities stay as they are.
    refit : bool
        Whether the head that is kept is fitted again on training and validation images together; only the test part is
        scored by it.
    merge : mapping of str to tuple of str
        Classes that count as one, by the name of the new class (the table ``[merge]`` of the file).
    limit : int or None
        At most so many images of each part, for a run that only has to show that it runs.
    preset : str or None
        The preset that this run follows; ``classify presets`` lists them.
    out : str or None
        The run folder. None: ``runs/CORPUS/TASK/HEAD``, or the name of the preset in the place of HEAD.
    """

    store: str
    task: str
    head: str
    blocks: tuple[str, ...] = ()
    split: str = "default"
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    on_failed: Literal["drop", "error"] = "drop"
    resamples: int = 1000
    calibration: Literal["temperature", "isotonic", "none"] = "temperature"
    refit: bool = False
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    limit: int | None = None
    preset: str | None = None
    out: str | None = None

    def __post_init__(self) -> None:
        if self.on_failed not in ("drop", "error"):
            message = f"on_failed is {self.on_failed!r}; valid: drop, error"
            raise ConfigError(message)
        if self.calibration not in ("temperature", "isotonic", "none"):
            message = f"calibration is {self.calibration!r}; valid: temperature, isotonic, none"
            raise ConfigError(message)
        if self.resamples < 20:
            message = f"resamples is {self.resamples}; an interval of 95% needs at least 20"
            raise ConfigError(message)
        if self.limit is not None and self.limit < 3:
            message = f"limit is {self.limit}; give at least 3 images a part"
            raise ConfigError(message)
        if self.seed < 0:
            message = f"seed is {self.seed}; give a whole number from 0 up"
            raise ConfigError(message)
        repeated = sorted({name for name in self.blocks if self.blocks.count(name) > 1})
        if repeated:
            message = f"blocks names {repeated[0]!r} more than once; name each block once"
            raise ConfigError(message)

    @property
    def corpus(self) -> str:
        """Name of the corpus: the store's own folder or file name."""
        path = Path(self.store).expanduser()
        name = path.stem if path.suffix in (".h5", ".hdf5") else path.name
        return name or path.resolve().name or "store"

    @property
    def folder(self) -> Path:
        """The folder that the run is written to."""
        if self.out:
            return Path(self.out).expanduser()
        quick = "-quick" if self.limit else ""  # so that a full run doesn't find its place taken
        return Path("runs", self.corpus, self.task, (self.preset or self.head) + quick)


# How each key is written in a TOML file: its name there, the types it takes, and how to say them.
_KEYS: dict[str, tuple[str, tuple[type, ...], str]] = {
    "store": ("store", (str,), "a path"),
    "task": ("task", (str,), "a name"),
    "head": ("head", (str,), "a name"),
    "blocks": ("blocks", (list, str), "a list of names"),
    "split": ("split", (str,), "a name"),
    "seed": ("seed", (int,), "a whole number"),
    "set": ("settings", (dict,), "a table of the head's options"),
    "on_failed": ("on_failed", (str,), '"drop" or "error"'),
    "resamples": ("resamples", (int,), "a whole number"),
    "calibration": ("calibration", (str,), '"temperature", "isotonic" or "none"'),
    "refit": ("refit", (bool,), "true or false"),
    "merge": ("merge", (dict,), 'a table of new classes, like bad = ["anger", "fear"]'),
    "limit": ("limit", (int,), "a whole number"),
    "preset": ("preset", (str,), "a name"),
    "out": ("out", (str,), "a path"),
}


def load_config(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a run's settings from a preset, under a TOML file, under *overrides*; each may be absent.

    Parameters
    ----------
    path : Path or None
        A TOML file. None: the overrides say everything.
    overrides : mapping or None
        Values under the names that the file uses; those that are None count as not given. ``set`` is merged
        into the file's table, option by option, the rest replaces.

    Returns
    -------
    RunConfig

    Raises
    ------
    ConfigError
        The file can't be read, a key is unknown, a value has the wrong type, or one of store, task and head
        is missing.
    """
    values = _checked(read_toml(path), str(path)) if path else {}
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    if path:
        if "out" not in given:
            check_out(values.get("out"), path)
        if "store" in values:
            values["store"] = _store_beside(values["store"], path)
    given = _checked(given, "the command line")
    if preset := given.get("preset", values.get("preset")):
        from classify.preset import find_preset

        values = _over(_checked(find_preset(preset).run, f"preset {preset}"), values)
    merged = _over(values, given)
    missing = [name for name in ("store", "task", "head") if not merged.get(name)]
    if missing:
        where = f"{path} doesn't give" if path else "the run lacks"
        message = f"{where} {', '.join(missing)}; a run needs a store, a task and a head"
        raise ConfigError(message)
    return RunConfig(**merged)


def check_out(out: str | None, path: Path) -> None:
    """Refuse a place outside of the working folder that a file, which may be a stranger's, chooses.

    Raises
    ------
    ConfigError
        It lies outside; on the command line it may.
    """
    if out and not Path(out).expanduser().resolve().is_relative_to(Path.cwd().resolve()):
        message = f"{path} sets out = {out!r}, outside of the working folder; to write there, give --out {out}"
        raise ConfigError(message)


def _store_beside(store: str, path: Path) -> str:
    """Return where a store lies: from the working folder, or from the file's own, as a run says it (``../``)."""
    beside = Path(os.path.normpath(path.parent.absolute() / store))
    from_run = store.startswith("..") or not Path(store).expanduser().exists()
    return str(beside) if from_run and beside.exists() else store


def shared_store(store: str, folder: Path) -> str:
    """Return a store's place as a run that is shared may tell it: from the run, or by its name alone.

    A path from the working folder stays as it was typed. What would name the user's home is left out.
    """
    place = Path(store).expanduser()
    told = os.path.relpath(place, folder) if place.is_absolute() else store
    private = set(Path.home().parts) if place.is_absolute() or ".." in place.parts else set()
    return place.name if private & set(Path(told).parts[:-1]) else told


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one set of fields over another; the head's options one by one, unless another head is asked for."""
    if "head" in above and above["head"] != below.get("head", above["head"]):
        below = {**below, "settings": {}}
    settings = {**below.get("settings", {}), **above.get("settings", {})}
    return {**below, **above, "settings": settings}


def _checked(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Turn the keys of a file into fields of `RunConfig`; refuse unknown names and wrong types."""
    fields: dict[str, Any] = {}
    for key, value in values.items():
        if key not in _KEYS:
            message = f"{where}: {unknown_name('key', key, _KEYS)}"
            raise ConfigError(message)
        name, types, wanted = _KEYS[key]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            message = f"{where}: {key} is {value!r}; it takes {wanted}"
            raise ConfigError(message)
        fields[name] = value
    if "blocks" in fields:
        fields["blocks"] = _names(fields["blocks"], where)
    if "merge" in fields:
        fields["merge"] = {name: _names(members, where, "merge") for name, members in fields["merge"].items()}
    if "settings" in fields:
        fields["settings"] = {key: _plain(value) for key, value in fields["settings"].items()}
    return fields


def _names(value: Any, where: str, key: str = "blocks") -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        example = "efficientnet_b2.pool" if key == "blocks" else "anger"
        message = f"{where}: {key} is {value!r}; it takes names, like {example}"
        raise ConfigError(message)
    return tuple(name.strip() for name in names)


def _plain(value: Any) -> Any:
    """Let the word ``none`` stand for None, for which TOML has no value."""
    return None if value == "none" else value


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs as the command line gives them.

    A value that is valid TOML is taken as such (``300``, ``1e-5``, ``true``, ``[1000, 200]``); any other is a
    text, and ``none`` is None.

    Parameters
    ----------
    pairs : iterable of str

    Returns
    -------
    dict

    Raises
    ------
    ConfigError
        A pair has no ``=``, no name before it, or a name that came before.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            message = f"--set {pair!r} isn't key=value; write for example --set epochs=50"
            raise ConfigError(message)
        if key in settings:
            message = f"--set gives {key!r} twice; give it once"
            raise ConfigError(message)
        settings[key] = _plain(_value(text.strip()))
    return settings


def _value(text: str) -> Any:
    if "\n" in text:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def dump_config(config: RunConfig) -> str:
    """Write *config* as TOML that `load_config` reads back to an equal record.

    The place of the run is left out: the file lies in it.

    Parameters
    ----------
    config : RunConfig

    Returns
    -------
    str
    """
    values = dataclasses.asdict(config)
    keys = {key: name for key, (name, _, _) in _KEYS.items() if key not in ("set", "merge", "out")}
    lines = [f"{key} = {toml_value(values[name])}" for key, name in keys.items() if values[name] is not None]
    for title, table in (("set", config.settings), ("merge", config.merge)):
        if table:
            lines += ["", f"[{title}]", *(f"{toml_key(k)} = {toml_value(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"
