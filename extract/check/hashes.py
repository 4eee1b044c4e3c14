"""One pass over the image files of a corpus: status, size, SHA-256, perceptual hash and age of each."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.errors import RefusedImageError
from extract.inputs.files import ImageFiles
from extract.inputs.images import make_decoder
from features_store import Status
from features_store.writer import plain_words

FINGERPRINT = np.dtype(
    [
        ("status", np.uint8),  # `Status.WRITTEN` for an image that decodes
        ("n_bytes", np.int64),  # -1 = no file
        ("file_sha256", np.uint8, 32),  # zeros = no file
        ("size", np.int32, 2),  # width and height in pixels, upright; -1 = not decodable
        ("phash", np.uint64),
        ("has_phash", np.bool_),  # neither what does not decode, nor an image of one colour
        ("modified", np.float64),  # seconds since 1970; NaN = not known
    ]
)
_FLAT = 2.0  # grey levels: an image with a smaller standard deviation has no structure to hash
_SIDE = 128  # pixels: the longer side of the thumbnail that is hashed
_AHEAD = 256  # images that the threads have at one time


def fingerprint_files(files: ImageFiles, *, progress: bool = True) -> tuple[NDArray[Any], dict[int, str]]:
    """Read and decode every image once: (n_images,) of `FINGERPRINT`, and by row why an image cannot be used."""
    from tqdm import tqdm

    n_images, decode = len(files), make_decoder("pillow")
    found, reasons = np.zeros(n_images, FINGERPRINT), {}
    found["n_bytes"], found["size"] = -1, -1

    def fingerprint(row: int) -> None:  # each thread writes rows of its own
        found["modified"][row] = files.modified(row)
        try:
            data = files.read(row)
            found["n_bytes"][row] = len(data)
            found["file_sha256"][row] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
            pixels = decode(data)
        except RefusedImageError as refused:
            found["status"][row], reasons[row] = refused.status, plain_words(str(refused))
            return
        phash = compute_phash(pixels)
        found["status"][row], found["size"][row] = Status.WRITTEN, pixels.shape[1::-1]
        found["phash"][row], found["has_phash"][row] = phash or 0, phash is not None

    bar = tqdm(total=n_images, desc="checking", unit=" images", delay=1, disable=not progress)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, n_images, _AHEAD):
            for _ in pool.map(fingerprint, range(start, min(start + _AHEAD, n_images))):
                bar.update()
    return found, reasons


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
