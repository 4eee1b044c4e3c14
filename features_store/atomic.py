"""Files of folders that someone else may have made: opened only if they are regular, read up to a limit."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path
from typing import BinaryIO, Literal

from features_store.errors import UnsafeFileError

Mode = Literal["rb", "r+b", "ab", "a+b"]

_ATTEMPTS = 5
_FLAGS: dict[str, int] = {
    "rb": os.O_RDONLY,
    "r+b": os.O_RDWR,
    "ab": os.O_WRONLY | os.O_APPEND,
    "a+b": os.O_RDWR | os.O_APPEND,
}
_ALWAYS = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"))
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


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
                msg = f"{where} {problem}"
                raise UnsafeFileError(msg)
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
    msg = f"{where} was replaced again and again while it was opened; try again when nothing else writes it"
    raise UnsafeFileError(msg)


def read_regular(path: Path | str, limit: int, *, links: bool = False) -> bytes:
    """Read a whole file as `open_regular` opens it; never more than `limit` bytes and one are read.

    Raises
    ------
    UnsafeFileError
        As `open_regular`; or if it grew beyond the limit meanwhile.
    """
    with open_regular(path, limit, links=links) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        msg = f"{path} has more than the {limit:,} bytes that are read; give a smaller file"
        raise UnsafeFileError(msg)
    return data


def typed_path(path: Path | str) -> Path:
    """Return where a path leads that the user typed: itself, or, if it is a link, the end of the link."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


_SECOND_NAME = "has a second name (hard link) in another place; give a copy of it a single name"


def _problem(path: Path, found: os.stat_result, limit: int | None, *, links: bool) -> str:
    """Say why a file is not opened; nothing if it may be."""
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        return f"is {kind}, and only regular files are opened here; put a copy of the file in its place"
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
