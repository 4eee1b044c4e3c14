"""Image ids: which are allowed, how they are stored, and the digest over all of them (FORMAT.md section 2)."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features_store.errors import FormatError

MAX_ID_BYTES = 1024


def encode_ids(ids: Sequence[str] | NDArray[np.str_]) -> NDArray[np.bytes_]:
    """Return ids as fixed-length UTF-8, after checking them.

    Shapes: returns (n_images,) fixed.
    Raises FormatError.
    """
    listed = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if not listed:
        raise FormatError("an index needs at least one image")
    try:
        encoded = [one.encode() for one in listed]
    except (UnicodeEncodeError, AttributeError) as error:
        raise FormatError(f"image ids must be text that UTF-8 can hold: {error}") from error
    check_ids(encoded)
    return np.array(encoded, dtype=f"S{max(map(len, encoded))}")


# What an id may hold without a closer look, and what in the text of all ids (one NUL before, between and after them)
# asks for one. An index may have half a million ids, so the common case is decided for all at once.
_PLAIN = bytes(c for c in range(0x20, 0x7F) if c not in b"\\:") + b"\0"
_SUSPECT = (b"\0\0", b"\0/", b"//", b"/\0", b"\0./", b"/./", b"/.\0", b"\0.\0", b"\0../", b"/../", b"/..\0", b"\0..\0")


def check_ids(ids: Sequence[bytes]) -> str:
    """Refuse ids that FORMAT.md section 2 does not allow; return their digest.

    Raises FormatError.
    """
    joined = b"\0".join([b"", *ids, b""])
    plain = joined.count(b"\0") == len(ids) + 1 and not joined.translate(None, _PLAIN)
    if not plain or any(text in joined for text in _SUSPECT):
        for row, one in enumerate(ids):
            _check_one_id(row, one)
    longest = max(ids, key=len)
    if len(longest) > MAX_ID_BYTES:
        raise FormatError(f"image id {longest[:60]!r}... has {len(longest)} bytes; at most {MAX_ID_BYTES} are allowed")
    if len(set(ids)) != len(ids):
        first: dict[bytes, int] = {}
        row, one = next((row, one) for row, one in enumerate(ids) if first.setdefault(one, row) != row)
        raise FormatError(
            f"image id {one.decode()!r} stands in row {first[one]} and again in row {row}; ids must be unique"
        )
    return hashlib.sha256(memoryview(joined)[1:]).hexdigest()


def _check_one_id(row: int, raw: bytes) -> None:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"image id in row {row} is not UTF-8: {raw[:60]!r}") from error
    rule = ""
    if not text:
        rule = "is empty"
    elif unicodedata.normalize("NFC", text) != text:
        rule = "is not in Unicode normalisation form NFC"
    elif any(unicodedata.category(c) in ("Cc", "Cs") for c in text) or "\\" in text:
        rule = "holds a control character or a backslash"
    elif text.startswith("/") or re.match(r"[A-Za-z]:", text):
        rule = "is not relative"
    elif any(part in ("", ".", "..") for part in text.split("/")):
        rule = "has an empty, '.' or '..' component"
    if rule:
        raise FormatError(f"image id {text[:60]!r} in row {row} {rule}")


def digest_of_ids(raw: NDArray[np.bytes_]) -> str:
    """Return the index digest (FORMAT.md section 2) of fixed-length ids."""
    return hashlib.sha256(b"\0".join(raw.tolist()) + b"\0").hexdigest()
