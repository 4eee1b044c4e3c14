"""What one run is made of: a frozen record, from a TOML file, from command-line flags, from Python, or from several."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from classify.errors import ConfigError
from classify.preset import find_preset
from classify.toml_text import plain_value, read_toml, toml_key, toml_value
from features_store.errors import unknown_name
from features_store.schema import repeated_name

ON_FAILED, CALIBRATIONS = ("drop", "error"), ("temperature", "isotonic", "none")
VIEWS = ("all", "canonical", "everywhere")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # how Python holds single bytes of a file name
LARGEST_SEED, MOST_RESAMPLES = 2**32 - 1, 1_000_000


def _key(types: type | tuple[type, ...], takes: str, default: Any = dataclasses.MISSING, *, key: str = "") -> Any:
    """Declare a key of a run's file: the types that it takes, also in words, and its name if the field has another."""
    table = types is Mapping
    return dataclasses.field(
        default=dataclasses.MISSING if table else default,
        default_factory=dict if table else dataclasses.MISSING,
        metadata={"key": key, "types": types, "takes": takes},
    )


@dataclass(frozen=True)
class RunConfig:
    """One head on one task of one store; a field is a key of the run's TOML file."""

    store: str = _key(str, "a path")  # a dump, or a folder of dumps over one index
    task: str = _key(str, "a name")
    head: str = _key(str, "a name", "auto")
    # To concatenate, in this order; empty: every block whose vectors have one dimension, by name.
    blocks: tuple[str, ...] = _key((list, tuple), "a list of names", ())
    split: str = _key(str, "a name", "default")
    seed: int = _key(int, "a whole number", 0)  # everything random in the run follows from it
    settings: Mapping[str, Any] = _key(Mapping, "a table of the head's options", key="set")
    # What happens to images that have a label and lack a vector in one of the blocks.
    on_failed: Literal["drop", "error"] = _key(str, '"drop" or "error"', "drop")
    resamples: int = _key(int, "a whole number", 1000)  # of the bootstrap behind each interval
    # What is fitted to the probabilities of the validation part; the run's own probabilities stay as they are.
    calibration: Literal["temperature", "isotonic", "none"] = _key(
        str, '"temperature", "isotonic" or "none"', "temperature"
    )
    # Whether the head that is kept is fitted again on training and validation images; it scores only the test part.
    refit: bool = _key(bool, "true or false", default=False)
    # Classes that count as one, by the name of the new class.
    merge: Mapping[str, tuple[str, ...]] = _key(Mapping, 'a table of new classes, like bad = ["anger", "fear"]')
    limit: int | None = _key(int, "a whole number", None)  # images of each part, for a run that only shows that it runs
    preset: str | None = _key(str, "a name", None)  # the published experiment that this run follows
    out: str | None = _key(str, "a path", None)  # the run folder; None: runs/CORPUS/TASK/(PRESET or HEAD)
    tested: str | None = _key(str, "the folder of a run", None)  # its head is scored on this store; nothing is fitted
    # Classes of the store by those of the tested head.
    class_map: Mapping[str, str] = _key(Mapping, 'a table of classes, like joy = "positive"', key="map")
    # Take a split that puts a group into two parts although it was not published so.
    allow_split_groups: bool = _key(bool, "true or false", default=False)
    # Of images with several views: whether each pass of training draws one of them, or takes the image as it is;
    # "everywhere": validation images are scored by one drawn view each, too.
    views: Literal["all", "canonical", "everywhere"] = _key(str, '"all", "canonical" or "everywhere"', "all")

    def __post_init__(self) -> None:
        for key, field in _FIELDS.items():
            value, types = getattr(self, field.name), field.metadata["types"]
            if value is None and field.default is None:
                continue
            if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
                raise ConfigError(f"{key} is {value!r}; it takes {field.metadata['takes']}")
        for name in ("store", "out", "tested"):
            _check_place(name, getattr(self, name) or "")
        for name, valid in (("on_failed", ON_FAILED), ("calibration", CALIBRATIONS), ("views", VIEWS)):
            if getattr(self, name) not in valid:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; valid: {', '.join(valid)}")
        if not 20 <= self.resamples <= MOST_RESAMPLES:
            raise ConfigError(
                f"resamples is {self.resamples}; an interval of 95% needs at least 20, at most {MOST_RESAMPLES}"
            )
        if self.limit is not None and self.limit < 3:
            raise ConfigError(f"limit is {self.limit}; give at least 3 images a part")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ConfigError(f"seed is {self.seed}; give a whole number from 0 to {LARGEST_SEED}")
        if (repeated := repeated_name(self.blocks)) is not None:
            raise ConfigError(f"blocks names {repeated!r} more than once; name each block once")

    @property
    def corpus(self) -> str:
        """Name of the corpus: the store's own folder or file name."""
        path = user_path(self.store)
        path = path if path.name not in ("", "..") else Path(os.path.realpath(path))
        return (path.stem if path.suffix in (".h5", ".hdf5") else path.name) or "store"

    @property
    def folder(self) -> Path:
        """The folder that the run is written to."""
        if self.out:
            return user_path(self.out)
        quick = "-quick" if self.limit else ""  # so that a full run does not find its place taken
        return Path("runs", *map(_file_name, (self.corpus, self.task, (self.preset or self.head) + quick)))

    def beside(self, name: str) -> Path:
        """Return a place beside the run's folder, of a name that may hold the name of any head."""
        return self.folder.with_name(_file_name(name))


_FIELDS = {field.metadata["key"] or field.name: field for field in dataclasses.fields(RunConfig)}
KEYS = tuple(_FIELDS)


def user_path(text: str | Path) -> Path:
    """Return a path whose ``~`` is the home folder; where nobody has one of that name it stays, and names nothing."""
    return Path(os.path.expanduser(text))


def _file_name(name: str) -> str:
    """Return a name as one folder that lies where it is put: no separator, no way up, no line break."""
    if name in (".", ".."):
        return name.replace(".", "%2E")
    return re.sub(r"[/\\\x00-\x1f\x7f]", lambda found: f"%{ord(found[0]):02X}", name)


def load_config(
    path: Path | None = None, overrides: Mapping[str, Any] | None = None, *, where: str = "the command line"
) -> RunConfig:
    """Read a run's settings from a preset, under a TOML file, under *overrides*; each may be absent.

    This is the one way from arguments to a `RunConfig`, for the command line, for files and for Python.
    """
    values = _checked(read_toml(path), str(path)) if path else {}
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    if path:
        if "out" not in given:
            check_out(values.get("out"), path)
        for name in {"store", "tested"} & values.keys():
            place = values[name]  # as it lies from the working folder, or from the folder of the file (``../``)
            if not isinstance(place, str) or "\0" in place:
                continue  # refused below
            beside = Path(os.path.normpath(path.parent.absolute() / place))
            if (place.startswith("..") or not user_path(place).exists()) and beside.exists():
                values[name] = str(beside)
    given = _checked(given, where)
    if preset := given.get("preset", values.get("preset")):
        values = _over(_checked(find_preset(preset).run, f"preset {preset}"), values)
    merged = _over(values, given)
    missing = [name for name in ("store", "task") if not merged.get(name)]
    if missing:
        lacking = f"{path} does not give" if path else "the run lacks"
        raise ConfigError(f"{lacking} {', '.join(missing)}; a run needs a store and a task")
    try:
        return RunConfig(**merged)
    except ConfigError as error:
        origin = where if not path else f"{path} with {where}" if given else str(path)
        raise ConfigError(f"{origin}: {error}") from error


def check_out(out: str | None, path: Path) -> None:
    """Refuse a place outside of the working folder that a file, which may be a stranger's, chooses."""
    _check_place("out", out or "")
    if out and not Path(os.path.realpath(user_path(out))).is_relative_to(Path.cwd().resolve()):
        raise ConfigError(f"{path} sets out = {out!r}, outside of the working folder; to write there, give --out {out}")


def _check_place(key: str, place: str) -> None:
    if "\0" in place or _NOT_UTF8.search(place):
        why = "has a zero byte, as no name can" if "\0" in place else "is not UTF-8, so no report can name it"
        raise ConfigError(f"{key} is {place!r}, which {why}; rename it, or make a link to it and give that")


def shared_place(given: str, folder: Path) -> str:
    """Return a place, of a store or a run, as a shared run may name it: relative to the run, or by its name alone.

    A path from the working folder stays as it was typed. What would name the user's home is left out.
    """
    place = user_path(given)
    relative = os.path.relpath(place, folder) if place.is_absolute() else given
    private = set(user_path("~").parts) if place.is_absolute() or ".." in place.parts else set()
    return place.name if private & set(Path(relative).parts[:-1]) else relative


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one set of fields over another; options of the head one by one, unless another head is chosen."""
    if "head" in above and above["head"] != below.get("head", above["head"]):
        below = {**below, "settings": {}}
    settings = {**below.get("settings", {}), **above.get("settings", {})}
    return {**below, **above, "settings": settings}


def _checked(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Turn keys of a file into fields of `RunConfig`; refuse unknown names, and tables and lists of the wrong form."""
    fields: dict[str, Any] = {}
    for key, value in values.items():
        if key not in _FIELDS:
            raise ConfigError(f"{where}: {unknown_name('key', key, _FIELDS)}")
        field = _FIELDS[key]
        if field.metadata["types"] is Mapping and not isinstance(value, Mapping):
            raise ConfigError(f"{where}: {key} is {value!r}; it takes {field.metadata['takes']}")
        fields[field.name] = _native(value)
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
        raise ConfigError(f"{where}: {key} is {value!r}; it takes names, like {example}")
    return tuple(name.strip() for name in names)


def dump_config(config: RunConfig) -> str:
    """Write *config* as TOML that `load_config` reads back to an equal record.

    The place of the run is left out: the file lies in it.
    """
    lines, tables = [], []
    for key, field in _FIELDS.items():
        value = getattr(config, field.name)
        if field.metadata["types"] is Mapping:
            tables += ["", f"[{key}]", *(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items())] if value else []
        elif key != "out" and value is not None:
            lines.append(f"{key} = {toml_value(value)}")
    return "\n".join([*lines, *tables]) + "\n"
