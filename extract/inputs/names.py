"""The names of images: one form for folders, archives and tables, so that equal names are equal texts.

The form is that of ids: relative, POSIX separators, Unicode normalisation form NFC. Bytes of a file name that are not
UTF-8 are written ``%XX``, so different names stay different; two names that become one are refused, never merged.
"""

from __future__ import annotations

import re
import unicodedata

from extract.errors import CorpusError

_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # how Python holds single bytes of a file name (PEP 383)


def canonical(raw: str) -> str:
    """Return a path in the form of ids: ``.`` and empty components taken out, NFC, undecodable bytes as ``%XX``."""
    name = raw
    if "//" in name or name.startswith("./") or "/./" in name:
        name = "/".join(part for part in name.split("/") if part not in ("", "."))
    if name.isascii():
        return name
    escaped = _NOT_UTF8.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", name)
    return unicodedata.normalize("NFC", escaped)


def decoded(raw: bytes) -> str:
    """Return a file name from an archive; bytes that are not UTF-8 become what `canonical` escapes."""
    return raw.decode("utf-8", "surrogateescape")


def is_escaped(raw: str) -> bool:
    """Tell whether `canonical` writes bytes of this name as ``%XX``."""
    return not raw.isascii() and _NOT_UTF8.search(raw) is not None


def member_name(raw: str) -> str | None:
    """Return the canonical name of a member of an archive, or None if it could lead out of the archive."""
    if not raw or raw.startswith("/") or "\\" in raw or "\0" in raw or raw[1:2] == ":":
        return None
    if ".." in raw and ".." in raw.split("/"):
        return None
    return canonical(raw) or None


def twins(place: object, name: str) -> CorpusError:
    """Word the error for two files that would have one id."""
    msg = (
        f"{place} holds two files or folders of the name {name!r} (the same name twice, in two Unicode forms, or "
        "with './' or '//' in it); one would be taken for the other: rename or remove one of them"
    )
    return CorpusError(msg)
