"""JSON files that appear whole or not at all, and replace nothing without being asked."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from classify.errors import RunError
from features_store.atomic import atomic_write
from features_store.errors import AffectoryError, ExistsError

__all__ = ["check_new", "read_json", "try_place", "write_json"]


def check_new(path: Path, *, force: bool) -> None:
    """Refuse a file that is there or can't be written, before any work is done for it.

    Raises
    ------
    ExistsError
        The file is there and *force* isn't given.
    RunError
        The place can't be written.
    """
    if path.exists() and not force:
        message = f"{path} exists; replace it with --force (force=True)"
        raise ExistsError(message)
    try_place(path)


def try_place(path: Path, what: str = "") -> None:
    """Refuse a place that can't be written, by writing there: folders that this takes are removed again.

    Raises
    ------
    RunError
        The message says why.
    """
    made: list[Path] = []
    try:
        for folder in reversed(path.absolute().parents):
            if not folder.is_dir():
                folder.mkdir()
                made.append(folder)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}."[:200], dir=path.absolute().parent):
            pass
        if path.is_dir():
            with tempfile.TemporaryFile(dir=path):
                pass
    except (OSError, ValueError) as error:  # ValueError: a null character
        message = f"can't write {what}{path}: {getattr(error, 'strerror', None) or error}; choose another place"
        raise RunError(message) from error
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def write_json(path: Path, values: Any, *, force: bool = False) -> None:
    """Write plain values; the folder is made.

    Parameters
    ----------
    path : Path
    values : object
        A NaN among them is an error: JSON has none.
    force : bool
        Whether a file that is there may be replaced.

    Raises
    ------
    ExistsError
        The file is there and *force* isn't given.
    RunError
        The place can't be written.
    """
    check_new(path, force=force)
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, force=force) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except AffectoryError:
        raise
    except OSError as error:
        message = f"can't write {path}: {error.strerror or error}"
        raise RunError(message) from error


def read_json(path: Path) -> dict[str, Any] | None:
    """Read an object; None where there is no such file.

    Raises
    ------
    RunError
        The file can't be read, or holds no JSON object.
    """
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"can't read {path}: {error}"
        raise RunError(message) from error
    if not isinstance(values, dict):
        message = f"{path} holds no JSON object; was it written by `classify`?"
        raise RunError(message)
    return values
