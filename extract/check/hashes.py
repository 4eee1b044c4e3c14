"""What is known of each image file after one pass over a corpus: state, size, content, look, age."""

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.engines.local import ordered
from extract.errors import RefusedImageError
from extract.inputs.files import Source
from extract.inputs.images import Decoder, make_decoder
from features_store import Status
from features_store.failures import plain_words

_FLAT = 2.0  # grey levels: with a smaller standard deviation an image has no structure that could be hashed
_SIDE = 128  # pixels: the longer side of what is hashed


@dataclass(frozen=True)
class Fingerprints:
    """One row per image.

    Parameters
    ----------
    status : ndarray of shape (n_images,), uint8
        `Status.WRITTEN` = it decodes; else why not.
    n_bytes : ndarray of shape (n_images,), int64
        -1 = missing.
    content : ndarray of shape (n_images, 32), uint8
        SHA-256 of the bytes; zeros = missing.
    width, height : ndarray of shape (n_images,), int32
        Pixels, upright; -1 = not decodable.
    look : ndarray of shape (n_images,), uint64
        Perceptual hash.
    hashed : ndarray of shape (n_images,), bool
        Whether `look` says something: not for what does not decode, nor for images of one colour.
    modified : ndarray of shape (n_images,), float64
        Seconds since 1970; NaN = not known.
    reasons : dict
        By row, why an image cannot be used.
    """

    status: NDArray[np.uint8]
    n_bytes: NDArray[np.int64]
    content: NDArray[np.uint8]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    look: NDArray[np.uint64]
    hashed: NDArray[np.bool_]
    modified: NDArray[np.float64]
    reasons: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.status)


@dataclass(frozen=True)
class _One:
    status: Status
    n_bytes: int = -1
    content: bytes = bytes(32)
    size: tuple[int, int] = (-1, -1)
    look: int | None = None
    reason: str = ""


def fingerprints_of(source: Source, *, progress: bool = True) -> Fingerprints:
    """Read and decode every image of a corpus once."""
    from tqdm import tqdm

    n_images, decode = len(source), make_decoder("pillow")
    found = Fingerprints(
        np.zeros(n_images, np.uint8),
        np.full(n_images, -1, np.int64),
        np.zeros((n_images, 32), np.uint8),
        np.full(n_images, -1, np.int32),
        np.full(n_images, -1, np.int32),
        np.zeros(n_images, np.uint64),
        np.zeros(n_images, np.bool_),
        np.full(n_images, np.nan),
    )
    n_threads = os.cpu_count() or 1
    with ThreadPoolExecutor(n_threads) as pool:
        results = ordered(pool, lambda row: _one(source, row, decode), range(n_images), ahead=4 * n_threads)
        bar = tqdm(results, total=n_images, desc="checking", unit=" images", delay=1, disable=not progress)
        for row, one in enumerate(bar):
            found.status[row], found.n_bytes[row] = one.status, one.n_bytes
            found.content[row] = np.frombuffer(one.content, np.uint8)
            found.width[row], found.height[row] = one.size
            found.hashed[row] = one.look is not None
            found.look[row] = one.look or 0
            found.modified[row] = source.modified(row)
            if one.reason:
                found.reasons[row] = plain_words(one.reason)
    return found


def _one(source: Source, row: int, decode: Decoder) -> _One:
    try:
        data = source.read(row)
    except RefusedImageError as refused:
        return _One(refused.status, reason=str(refused))
    content = hashlib.sha256(data).digest()
    try:
        pixels = decode(data)
    except RefusedImageError as refused:
        return _One(refused.status, len(data), content, reason=str(refused))
    height, width = pixels.shape[:2]
    return _One(Status.WRITTEN, len(data), content, (width, height), look_of(pixels))


def look_of(pixels: NDArray[np.uint8]) -> int | None:
    """Return the perceptual hash of an image, 64 bits (ImageHash's phash); None for an image of one colour.

    Shapes: pixels (height, width, 3) uint8.
    """
    import imagehash
    from PIL import Image

    small = Image.fromarray(pixels).convert("L")
    small.thumbnail((_SIDE, _SIDE), reducing_gap=2.0)
    if np.asarray(small, dtype=np.float32).std() < _FLAT:
        return None
    bits: NDArray[Any] = imagehash.phash(small).hash
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


def thumbnail_of(data: bytes, decode: Decoder, *, side: int) -> bytes | None:
    """Return a small JPEG of an image, or None if it does not decode."""
    from PIL import Image

    try:
        picture = Image.fromarray(decode(data))
    except RefusedImageError:
        return None
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()
