"""Which files are pictures, by their names and, for JPEG under any suffix, their first bytes; why others are not."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

_JPEG = (".jfi", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg", ".pjp", ".pjpeg")
_JPEG2000 = (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx")
_OTHERS = (".avif", ".avifs", ".bmp", ".dib", ".gif", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
SUFFIXES = frozenset((*_JPEG, *_JPEG2000, *_OTHERS))
HEIF = frozenset((".heic", ".heif", ".hif"))
NEVER = frozenset((".ai", ".emf", ".eps", ".fit", ".fits", ".pdf", ".ps", ".psb", ".psd", ".svg", ".wmf"))
# Files that lie beside pictures in every corpus: nobody wants half a million of them opened to see their first bytes.
_DATA = frozenset(
    f".{one}"
    for one in (
        *("ann", "csv", "db", "doc", "docx", "h5", "hdf5", "htm", "html", "ini", "ipynb", "json", "jsonl", "log"),
        *("m", "mat", "md", "npy", "npz", "parquet", "pickle", "pkl", "py", "rtf", "tsv", "txt", "url", "xls", "xlsx"),
        *("xml", "yaml", "yml", "7z", "bz2", "gz", "rar", "tar", "xz", "zip", "avi", "mkv", "mov", "mp3", "mp4", "wav"),
    )
)
JPEG_START = b"\xff\xd8\xff"
HIDDEN = "hidden (a name that starts with a dot)"
SHOWN = 8  # reasons that a note lists


@dataclass
class Census:
    """The pictures of a folder or archive, and what was left out.

    Parameters
    ----------
    images : list of str
        Canonical names, sorted.
    left_out : dict of str to int
        Files by reason.
    n_escaped : int
        Images whose file names are not UTF-8.
    folders : set of str
        Those with files that were left out, hidden ones apart.
    """

    images: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    n_escaped: int = 0
    folders: set[str] = field(default_factory=set)

    def leave_out(self, reason: str, n: int = 1) -> None:
        """Count files that are left out."""
        self.left_out[reason] = self.left_out.get(reason, 0) + n

    def take(self, path: str, start: Callable[[], bytes]) -> bool:
        """Count one file; tell whether it is a picture."""
        reason = why_not(path.rpartition("/")[2], start)
        if reason:
            self.leave_out(reason)
            if reason != HIDDEN:
                self.folders.add(path.rpartition("/")[0])
        else:
            self.images.append(path)
        return not reason


def why_not(name: str, start: Callable[[], bytes]) -> str:
    """Return why a file is no picture that is read; "" = it is one."""
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith("."):
        return HIDDEN
    if suffix in SUFFIXES or (suffix in HEIF and heif_is_installed()):
        return ""
    if suffix in HEIF:
        return f"{suffix} (HEIF is read where its plug-in is installed: pip install pillow-heif)"
    if suffix in NEVER:
        return f"{suffix} (a format that is never read)"
    if suffix not in _DATA and start().startswith(JPEG_START):
        return ""
    return f"{suffix} (no picture)" if 1 < len(suffix) <= 12 else "no suffix (no picture)"


def heif_is_installed() -> bool:
    """Tell whether Pillow's plug-in for HEIF is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def left_out_words(left_out: Mapping[str, int]) -> str:
    """Return the sentence of a note on files that were left out."""
    some = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{count} {reason}" for reason, count in some[:SHOWN])
    more = f", and {sum(count for _, count in some[SHOWN:])} for other reasons" if len(some) > SHOWN else ""
    return f"files left out: {sum(left_out.values())}: {listed}{more}"


def merged(counts: Iterable[tuple[str, Mapping[str, int]]]) -> dict[str, int]:
    """Add counts up; the words of each go before its reasons."""
    total: dict[str, int] = {}
    for words, some in counts:
        for reason, count in some.items():
            total[f"{words}{reason}"] = total.get(f"{words}{reason}", 0) + count
    return total
