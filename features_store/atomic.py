"""Files that appear whole or not at all, and files of strangers' folders, opened only if they are regular.

What is being made lies in a folder ``.NAME.RANDOM.part`` beside its place. Its maker holds a lock in it, so whoever
writes into the same place next can tell what a killed process left, and removes it.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

from features_store.disk import HELD, KINDS, disk_errors, exchange, lock, move_new, refuse_special, sync, sync_tree
from features_store.errors import ExistsError, StoreError, UnsafeFileError

Mode = Literal["rb", "r+b", "ab", "a+b"]

_ATTEMPTS = 20
_MAX_DIRECTORY = 256 * 2**20  # bytes; a million members take half of it
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.part")
_LOCK, _OLD = ".lock", "old"
_ABANDONED_SECONDS = 24 * 3600  # without a change: nobody works on it any more, wherever
_LOOK_SECONDS = 0.5  # a folder is looked over at most so often
_FLAGS: dict[str, int] = {
    "rb": os.O_RDONLY,
    "r+b": os.O_RDWR,
    "ab": os.O_WRONLY | os.O_APPEND,
    "a+b": os.O_RDWR | os.O_APPEND,
}
_ALWAYS = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"))


def open_regular(path: Path | str, limit: int | None = None, *, mode: Mode = "rb", links: bool = False) -> BinaryIO:
    """Open a file of a folder that someone else may have made, if it is a regular file and no link to another one.

    The open never waits, follows no link in the last component, and checks the file that was opened, not only its name.

    Parameters
    ----------
    path : path-like
        A path that the user typed may itself be a link: give `typed_path` of it.
    limit : int, optional
        The most bytes that it may have.
    mode : {"rb", "r+b", "ab", "a+b"}
        The modes that append make a file that is not there; none of them truncates.
    links : bool
        Allow symbolic links and second names, as among the images of a corpus or in a cache of weights.

    Returns
    -------
    binary file

    Raises
    ------
    UnsafeFileError
        If it is a link, a folder, a pipe, a socket or a device, has a second name, or is larger than `limit`.
    OSError
        If it is not there, or cannot be opened.
    """
    where = Path(path)
    for attempt in range(_ATTEMPTS):
        flags = _FLAGS[mode] | _ALWAYS | (0 if links else getattr(os, "O_NOFOLLOW", 0))
        try:
            before = os.stat(where, follow_symlinks=links)
        except FileNotFoundError:
            if mode not in ("ab", "a+b"):
                raise
            flags |= os.O_CREAT | os.O_EXCL
        else:
            problem = _problem(where, before, limit, links=links)
            if problem and problem == _SECOND_NAME and attempt < _ATTEMPTS - 1:
                time.sleep(0.01)  # a file that gets its name just now has two for an instant
                continue
            if problem:
                raise UnsafeFileError(f"{where} {problem}")
        try:
            fd = os.open(where, flags, 0o666)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.EMLINK) and attempt < _ATTEMPTS - 1:
                continue  # it was put there, taken away or replaced in between: look again
            raise
        opened = os.fstat(fd)
        if flags & os.O_CREAT or os.path.samestat(before, opened):
            return os.fdopen(fd, mode)
        os.close(fd)
    raise UnsafeFileError(
        f"{where} was replaced again and again while it was opened; try again when nothing else writes it"
    )


def read_regular(path: Path | str, limit: int, *, links: bool = False) -> bytes:
    """Read a whole file as `open_regular` opens it; never more than `limit` bytes and one are read.

    Raises
    ------
    UnsafeFileError
        As `open_regular`; or if it grew beyond the limit meanwhile.
    """
    with open_regular(path, limit, links=links) as file:
        data, size = read_up_to(file, limit)
    if size > limit:
        msg = f"{path} has more than the {limit:,} bytes that are read; give a smaller file"
        raise UnsafeFileError(msg)
    return data


def read_up_to(file: BinaryIO, limit: int) -> tuple[bytes, int]:
    """Return the bytes of an open file and their number; none if there are more than the limit, also by growing."""
    size = os.fstat(file.fileno()).st_size
    if size > limit:
        return b"", size
    # By its size, not by the limit: a read sets its bound of memory aside before it reads.
    data = file.read(size + 1)
    while len(data) <= limit and (more := file.read(min(2**20, limit + 1 - len(data)))):
        data += more
    return (data if len(data) <= limit else b""), len(data)


def zip_source(file: BinaryIO) -> Any:
    """Give an open ZIP file to `zipfile`, which reads a directory as long as the file itself claims, in one piece."""
    return _ZipSource(file)


class _ZipSource:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_DIRECTORY:
            raise UnsafeFileError(f"its directory claims {size:,} bytes; at most {_MAX_DIRECTORY:,} are read")
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def typed_path(path: Path | str) -> Path:
    """Return where a path leads that the user typed: itself, or, if it is a link, the end of the link."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


_SECOND_NAME = "has a second name (hard link) in another place; give a copy of it a single name"


def _problem(path: Path, found: os.stat_result, limit: int | None, *, links: bool) -> str:
    """Say why a file is not opened; nothing if it may be."""
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        return f"is not a regular file but {kind}; put a copy of the file in its place"
    if limit is not None and found.st_size > limit:
        return f"has {found.st_size:,} bytes; at most {limit:,} are read"
    if not links and found.st_nlink > 1 and not (found.st_nlink == 2 and _has_temporary(path, found)):
        return _SECOND_NAME
    return ""


def _has_temporary(path: Path, found: os.stat_result) -> bool:
    """Tell whether the second name of a file is the temporary beside it, which a killed writer left."""
    with os.scandir(path.parent) as entries:
        temporaries = [
            Path(one.path) for one in entries if one.name.startswith(f".{path.name}.") and one.name.endswith(".part")
        ]
    for name in (*temporaries, *(one / path.name for one in temporaries)):
        try:
            if os.path.samestat(os.lstat(name), found):
                return True
        except OSError:
            continue
    return False


# ---- writing --------------------------------------------------------------------------------------------------------


@contextmanager
def atomic_write(path: Path | str, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path`; on success make the file durable and move it to `path`."""
    place = Path(path)
    if place.is_dir() and not place.is_symlink():
        raise ExistsError(f"{place} is a folder; give the name of the file to make, such as {place / 'new'}")
    refuse_special(place)
    with _made_beside(place, force=force) as temporary:
        yield temporary
        sync(temporary)
        _publish(temporary, place, force=force)


@contextmanager
def atomic_folder(path: Path | str, *, force: bool = False) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`; on success make all in it durable and move it to `path`.

    A folder that is replaced is exchanged for the new one at one instant. Where the system cannot do that it is moved
    aside first; if the process is killed then, the next that writes beside it, or `recover`, moves it back.
    """
    place = Path(path)
    recover(place)
    taken = place.is_symlink() or (place.exists() and not place.is_dir())
    if taken:
        raise ExistsError(f"{place} is no folder, so it is not replaced by one; choose another place")
    empty = place.is_dir() and not any(place.iterdir())
    with _made_beside(place, force=force or empty) as temporary:
        temporary.mkdir()
        yield temporary
        sync_tree(temporary)
        _publish(temporary, place, force=force)


def recover(path: Path | str) -> None:
    """Remove what killed processes left beside `path`, and move back what one of them had moved aside."""
    folder = Path(path).parent
    _looked_over.pop(folder, None)
    _sweep(folder)


@contextmanager
def _made_beside(place: Path, *, force: bool) -> Iterator[Path]:
    if os.path.lexists(place) and not force:
        _sweep(place.parent)  # perhaps a killed process has just made it
        raise ExistsError(_exists(place))
    place.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(place):
        _sweep(place.parent)
        folder, held = _temporary_folder(place)
        temporary = folder / place.name
        try:
            with _naming(temporary, place):
                yield temporary
        finally:
            _remove(folder)
            os.close(held)


@contextmanager
def _naming(temporary: Path, place: Path) -> Iterator[None]:
    """Let errors name the file that the user knows, not the temporary one."""
    try:
        yield
    except StoreError as error:
        if str(temporary) not in str(error):
            raise
        raise type(error)(str(error).replace(str(temporary), str(place))) from error
    except OSError as error:
        if error.filename is not None and str(error.filename) == str(temporary):
            error.filename = str(place)
        raise


def _temporary_folder(place: Path) -> tuple[Path, int]:
    """Make the folder in which something is made; return it, and the open file by which it is held."""
    who = json.dumps({"pid": os.getpid(), "host": platform.node()}).encode()
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".part", dir=place.parent))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(place)) from error
        try:
            held = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:
            continue  # another process removed it before it was held
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise OSError(error.errno, error.strerror, str(place)) from error
        being_swept = False
        try:
            lock(held)
            os.write(held, who)
        except OSError as error:  # where a file system knows no locks, what is left there goes by its age
            being_swept = error.errno in HELD
        if not being_swept and (folder / _LOCK).exists():
            return folder, held
        os.close(held)
        shutil.rmtree(folder, ignore_errors=True)


_looked_over: dict[Path, float] = {}


def _sweep(folder: Path) -> None:
    """Remove the temporary folders of dead processes."""
    now = time.monotonic()
    if now - _looked_over.get(folder, -1e9) < _LOOK_SECONDS:
        return
    _looked_over[folder] = now
    try:
        with os.scandir(folder) as entries:
            found = [
                Path(one) for one in entries if _TEMPORARY.fullmatch(one.name) and one.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return
    for one in found:
        _sweep_one(one)


def _sweep_one(folder: Path) -> None:
    try:
        with open_regular(folder / _LOCK, 4096, mode="r+b") as file:
            lock(file.fileno())
            if _of_other_host(file.read(4096)) and not _abandoned(folder):
                return  # whose lock may not be seen here
            _move_back(folder)
            _remove(folder)
    except FileNotFoundError:
        with suppress(OSError):  # its maker may just be removing it
            if _abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                folder.rmdir()  # if it is empty; its maker, should it live, makes another
    except (OSError, StoreError):
        return  # somebody works in it, or it is not ours


def _remove(folder: Path) -> None:
    """Remove a temporary folder, the lock last: if this process is killed, too, the next can tell."""
    with suppress(OSError):
        for one in sorted(folder.iterdir(), key=lambda path: path.name == _LOCK):
            if one.is_dir() and not one.is_symlink():
                shutil.rmtree(one, ignore_errors=True)
            else:
                one.unlink()
        folder.rmdir()


def _of_other_host(text: bytes) -> bool:
    try:
        return bool(text) and bool(json.loads(text)["host"] != platform.node())
    except (ValueError, KeyError, TypeError):
        return True


def _abandoned(folder: Path) -> bool:
    paths = [folder, *(Path(parent, name) for parent, _, names in os.walk(folder) for name in names)]
    return time.time() - max(os.lstat(path).st_mtime for path in paths) > _ABANDONED_SECONDS


def _move_back(folder: Path) -> None:
    """Give a folder that was moved aside, and not replaced before its process died, its name again."""
    aside = folder / _OLD
    if not aside.is_dir() or aside.is_symlink():
        return
    for one in aside.iterdir():
        place = folder.parent / one.name
        if not os.path.lexists(place):
            os.rename(one, place)


def _publish(new: Path, place: Path, *, force: bool) -> None:
    """Give what was made its name, and make the name durable; where that fails the name is as it was."""
    aside = new.parent / _OLD / place.name
    replaced = force and os.path.lexists(place)
    exchanged = False
    try:
        if not force:
            move_new(new, place)
        elif replaced:
            exchanged = exchange(new, place)
        if force and not exchanged:
            if place.is_dir() and not place.is_symlink():
                aside.parent.mkdir()
                os.rename(place, aside)
            os.replace(new, place)
    except FileExistsError as error:
        raise ExistsError(_exists(place)) from error
    except BaseException:
        if aside.exists() and not os.path.lexists(place):
            os.rename(aside, place)
        raise
    try:
        sync(place.parent)
    except OSError as error:
        error.filename = str(place)
        with suppress(OSError):
            if exchanged:
                exchange(new, place)
            elif not replaced:
                _take_back(place, new)
        raise


def _take_back(place: Path, new: Path) -> None:
    try:
        os.rename(place, new)
    except OSError:  # a full disk may have no room for the name either; removing needs none
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        raise


def _exists(path: Path) -> str:
    return f"{path} exists; nothing is overwritten without --force (force=True)"
