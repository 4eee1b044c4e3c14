"""One pass over the image files of a corpus: status, size, SHA-256, perceptual hash and age of each."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.engines.local import ordered
from extract.errors import RefusedImageError
from extract.inputs.files import ImageFiles
from extract.inputs.images import make_decoder
from features_store import Status
from features_store.writer import plain_words

_FLAT = 2.0  # grey levels: an image with a smaller standard deviation has no structure to hash
_SIDE = 128  # pixels: the longer side of the thumbnail that is hashed


@dataclass(frozen=True)
class Fingerprints:
    """Columns with one row per image, and the reasons of failures by row.

    `status` is `Status.WRITTEN` for an image that decodes; `file_sha256` is zeros, and `n_bytes` -1, for a missing
    file; `phash` is meaningful where `has_phash`: not for what does not decode, nor for images of one colour.
    """

    status: NDArray[np.uint8]  # (n_images,)
    n_bytes: NDArray[np.int64]  # (n_images,)
    file_sha256: NDArray[np.uint8]  # (n_images, 32)
    width: NDArray[np.int32]  # (n_images,), pixels, upright; -1 = not decodable
    height: NDArray[np.int32]
    phash: NDArray[np.uint64]  # (n_images,)
    has_phash: NDArray[np.bool_]
    modified: NDArray[np.float64]  # (n_images,), seconds since 1970; NaN = not known
    reasons: dict[int, str] = field(default_factory=dict)


def fingerprint_files(files: ImageFiles, *, progress: bool = True) -> Fingerprints:
    """Read and decode every image of a corpus once."""
    from tqdm import tqdm

    n_images, decode = len(files), make_decoder("pillow")
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

    def fingerprint(row: int) -> None:  # each thread writes rows of its own
        found.modified[row] = files.modified(row)
        try:
            data = files.read(row)
            found.n_bytes[row] = len(data)
            found.file_sha256[row] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
            pixels = decode(data)
        except RefusedImageError as refused:
            found.status[row], found.reasons[row] = refused.status, plain_words(str(refused))
            return
        found.height[row], found.width[row] = pixels.shape[:2]
        phash = compute_phash(pixels)
        found.status[row], found.phash[row], found.has_phash[row] = Status.WRITTEN, phash or 0, phash is not None

    n_threads = os.cpu_count() or 1
    with ThreadPoolExecutor(n_threads) as pool:
        done = ordered(pool, fingerprint, range(n_images), ahead=4 * n_threads)
        for _ in tqdm(done, total=n_images, desc="checking", unit=" images", delay=1, disable=not progress):
            pass
    return found


def compute_phash(pixels: NDArray[np.uint8]) -> int | None:
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
