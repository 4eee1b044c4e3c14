"""What one run is made of: a frozen record, from a TOML file, from command-line flags, or from both."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from classify.errors import ConfigError
from classify.toml_text import parse_settings, plain_value, read_toml, toml_key, toml_value
from features_store.errors import unknown_name

__all__ = [
    "KEYS",
    "RunConfig",
    "check_out",
    "dump_config",
    "load_config",
    "parse_settings",
    "read_toml",
    "shared_store",
]

ON_FAILED, CALIBRATIONS = ("drop", "error"), ("temperature", "isotonic", "none")
LARGEST_SEED, MOST_RESAMPLES = 2**32 - 1, 1_000_000


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
    tested : str or None
        Folder of a run whose head is tested on this store, as it is (``classify test``). Nothing is fitted then.
    class_map : mapping of str to str
        Of the store's classes to those of the tested head (the table ``[map]`` of the file).
    allow_split_groups : bool
        Whether the split may part groups although it was not published so (``--allow-split-groups``).
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
    tested: str | None = None
    class_map: Mapping[str, str] = field(default_factory=dict)
    allow_split_groups: bool = False

    def __post_init__(self) -> None:
        for name, (field_name, types, wanted) in _KEYS.items():
            value = getattr(self, field_name)
            if value is None and field_name in _OPTIONAL:
                continue
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                message = f"{name} is {value!r}; it takes {wanted}"
                raise ConfigError(message)
        for name, valid in (("on_failed", ON_FAILED), ("calibration", CALIBRATIONS)):
            if getattr(self, name) not in valid:
                message = f"{name} is {getattr(self, name)!r}; valid: {', '.join(valid)}"
                raise ConfigError(message)
        if not 20 <= self.resamples <= MOST_RESAMPLES:
            message = f"resamples is {self.resamples}; an interval of 95% needs at least 20, at most {MOST_RESAMPLES}"
            raise ConfigError(message)
        if self.limit is not None and self.limit < 3:
            message = f"limit is {self.limit}; give at least 3 images a part"
            raise ConfigError(message)
        if not 0 <= self.seed <= LARGEST_SEED:
            message = f"seed is {self.seed}; give a whole number from 0 to {LARGEST_SEED}"
            raise ConfigError(message)
        repeated = sorted({name for name in self.blocks if self.blocks.count(name) > 1})
        if repeated:
            message = f"blocks names {repeated[0]!r} more than once; name each block once"
            raise ConfigError(message)

    @property
    def corpus(self) -> str:
        """Name of the corpus: the store's own folder or file name."""
        path = Path(self.store).expanduser()
        path = path if path.name not in ("", "..") else path.resolve()
        return (path.stem if path.suffix in (".h5", ".hdf5") else path.name) or "store"

    @property
    def folder(self) -> Path:
        """The folder that the run is written to."""
        if self.out:
            return Path(self.out).expanduser()
        quick = "-quick" if self.limit else ""  # so that a full run doesn't find its place taken
        return Path("runs", *map(_file_name, (self.corpus, self.task, (self.preset or self.head) + quick)))


def _file_name(name: str) -> str:
    """Return a name as one folder that lies where it is put: no separator, no way up, no line break."""
    if name in (".", ".."):
        return name.replace(".", "%2E")
    return re.sub(r"[/\\\x00-\x1f\x7f]", lambda found: f"%{ord(found[0]):02X}", name)


# How each key is written in a TOML file: its name there, the types it takes, and how to say them.
_KEYS: dict[str, tuple[str, tuple[type, ...], str]] = {
    "store": ("store", (str,), "a path"),
    "task": ("task", (str,), "a name"),
    "head": ("head", (str,), "a name"),
    "blocks": ("blocks", (list, tuple), "a list of names"),
    "split": ("split", (str,), "a name"),
    "seed": ("seed", (int,), "a whole number"),
    "set": ("settings", (Mapping,), "a table of the head's options"),
    "on_failed": ("on_failed", (str,), '"drop" or "error"'),
    "resamples": ("resamples", (int,), "a whole number"),
    "calibration": ("calibration", (str,), '"temperature", "isotonic" or "none"'),
    "refit": ("refit", (bool,), "true or false"),
    "merge": ("merge", (Mapping,), 'a table of new classes, like bad = ["anger", "fear"]'),
    "limit": ("limit", (int,), "a whole number"),
    "preset": ("preset", (str,), "a name"),
    "out": ("out", (str,), "a path"),
    "tested": ("tested", (str,), "the folder of a run"),
    "allow_split_groups": ("allow_split_groups", (bool,), "true or false"),
    "map": ("class_map", (Mapping,), 'a table of classes, like joy = "positive"'),
}
_OPTIONAL = ("limit", "preset", "out", "tested")
KEYS = tuple(_KEYS)
_TABLES = ("set", "merge", "map")


def load_config(
    path: Path | None = None, overrides: Mapping[str, Any] | None = None, *, where: str = "the command line"
) -> RunConfig:
    """Read a run's settings from a preset, under a TOML file, under *overrides*; each may be absent.

    This is the one way from arguments to a `RunConfig`, for the command line, for files and for Python.

    Raises ConfigError.
    """
    values = _checked(read_toml(path), str(path)) if path else {}
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    if path:
        if "out" not in given:
            check_out(values.get("out"), path)
        if "store" in values:
            values["store"] = _store_beside(values["store"], path)
    given = _checked(given, where)
    if preset := given.get("preset", values.get("preset")):
        from classify.preset import find_preset

        values = _over(_checked(find_preset(preset).run, f"preset {preset}"), values)
    merged = _over(values, given)
    missing = [name for name in ("store", "task", "head") if not merged.get(name)]
    if missing:
        where = f"{path} doesn't give" if path else "the run lacks"
        message = f"{where} {', '.join(missing)}; a run needs a store, a task and a head"
        raise ConfigError(message)
    try:
        return RunConfig(**merged)
    except ConfigError as error:
        origin = where if not path else f"{path} with {where}" if given else str(path)
        message = f"{origin}: {error}"
        raise ConfigError(message) from error


def check_out(out: str | None, path: Path) -> None:
    """Refuse a place outside of the working folder that a file, which may be a stranger's, chooses.

    Raises ConfigError.
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
        name, _, wanted = _KEYS[key]
        if key in _TABLES and not isinstance(value, Mapping):
            message = f"{where}: {key} is {value!r}; it takes {wanted}"
            raise ConfigError(message)
        fields[name] = _native(value)
    if "blocks" in fields:
        fields["blocks"] = _names(fields["blocks"], where)
    if "merge" in fields:
        fields["merge"] = {name: _names(members, where, "merge") for name, members in fields["merge"].items()}
    if "settings" in fields:
        fields["settings"] = {key: plain_value(value) for key, value in fields["settings"].items()}
    return fields


def _native(value: Any) -> Any:
    """Turn what Python has beside the types of a file into those: paths, tuples, numbers and arrays of numpy."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_native(item) for item in value]
    return {key: _native(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _names(value: Any, where: str, key: str = "blocks") -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        example = "efficientnet_b2.pool" if key == "blocks" else "anger"
        message = f"{where}: {key} is {value!r}; it takes names, like {example}"
        raise ConfigError(message)
    return tuple(name.strip() for name in names)


def dump_config(config: RunConfig) -> str:
    """Write *config* as TOML that `load_config` reads back to an equal record.

    The place of the run is left out: the file lies in it.
    """
    values = dataclasses.asdict(config)
    keys = {key: name for key, (name, _, _) in _KEYS.items() if key not in (*_TABLES, "out")}
    lines = [f"{key} = {toml_value(values[name])}" for key, name in keys.items() if values[name] is not None]
    for title, table in (("set", config.settings), ("merge", config.merge), ("map", config.class_map)):
        if table:
            lines += ["", f"[{title}]", *(f"{toml_key(k)} = {toml_value(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"
