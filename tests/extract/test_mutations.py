"""Mutated images by the hundred: each row gets its own vector or its own reason, and nothing else."""

from __future__ import annotations

import hashlib
import io
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract import pipeline
from extract.corpora import Dataset
from extract.errors import RefusedImageError
from extract.inputs.images import Decoder, make_decoder
from extract.settings import RunSettings
from features_store import Index, Status, open_store

FORMS = ("JPEG", "PROGRESSIVE", "PNG", "PALETTE", "GIF", "ANIMATED", "WEBP", "BMP", "TIFF", "DEFLATED", "PPM", "CMYK")


def encoded(form: str, photo: np.ndarray) -> bytes:
    """One small image in a form."""
    image, file = Image.fromarray(photo), io.BytesIO()
    if form == "PROGRESSIVE":
        image.save(file, "JPEG", progressive=True)
    elif form == "CMYK":
        image.convert("CMYK").save(file, "JPEG")
    elif form == "PALETTE":
        image.quantize(16).save(file, "PNG", transparency=3)
    elif form == "ANIMATED":
        image.save(file, "GIF", save_all=True, append_images=[image.rotate(90), image.rotate(180)])
    elif form == "DEFLATED":
        image.save(file, "TIFF", compression="tiff_deflate")
    else:
        image.save(file, form)
    return file.getvalue()


def marked(row: int) -> bytes:
    """A whole image that carries its row in its pixels."""
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:, :12, 0], pixels[:, 12:, 0], pixels[..., 1] = row // 256, row % 256, 77
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Damage a file in one of nine ways, some files more than once."""
    out = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        way, size = int(random.integers(9)), max(len(out), 1)
        at = int(random.integers(size))
        piece = int(random.integers(1, 64))
        if way == 0:
            del out[at:]
        elif way == 1:
            out[at : at + 1] = random.bytes(1)
        elif way == 2:
            out[at : at + piece] = random.bytes(piece)
        elif way == 3:
            del out[at : at + piece]
        elif way == 4:
            out[at:at] = random.bytes(piece)
        elif way == 5:
            out[at : at + piece] = b"\0" * piece
        elif way == 6:  # sizes and other numbers of headers
            at = int(random.integers(min(size, 64)))
            out[at : at + 4] = random.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\xff\xff"])
        elif way == 7:
            out[:8] = random.choice(
                [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\0\x10JF", b"GIF89a\1\0", b"RIFF\xff\0\0\0"]
            )
        else:
            out += out[at:]
    return bytes(out)


class Files:
    """Every second image is whole and carries its row; the others are damaged, each in its own way."""

    def __init__(self, n_images: int, photo: np.ndarray) -> None:
        self._n_images = n_images
        self._whole = [encoded(form, photo) for form in FORMS]

    def __len__(self) -> int:
        return self._n_images

    def read(self, row: int) -> bytes:
        if row % 2 == 0:
            return marked(row)
        if row % 101 == 0:
            raise RefusedImageError(Status.MISSING, "planted")
        return mutated(self._whole[row // 2 % len(FORMS)], np.random.default_rng(row))

    def modified(self, row: int) -> float:
        return math.nan


def alone(data: bytes) -> np.ndarray | None:
    """What Pillow alone makes of a file in a process of no threads: RGB, or None where it refuses."""
    try:
        return make_decoder("pillow")(data)
    except RefusedImageError:
        return None


def verdict_of(decode: Decoder, data: bytes) -> Status:
    try:
        rgb = decode(data)
    except RefusedImageError as refused:
        return refused.status
    assert rgb.dtype == np.uint8
    assert rgb.ndim == 3
    return Status.WRITTEN


def peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


@pytest.mark.filterwarnings("ignore")
def test_mutated_images_shift_nothing(tmp_path, toy, photos):
    n_images = 1000  # half of them mutated
    source = Files(n_images, photos["chelsea"][60:100, 80:140])
    index = Index(np.array([f"{row}.img" for row in range(n_images)]))
    watched = Path("/proc/self/clear_refs").exists()
    if watched:
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_mib() if watched else 0.0
    settings = RunSettings(device="cpu", decoder="pillow", dtype="float32", batch_size=8, max_failed="100%")
    summary = pipeline.run(Dataset(index, source), [toy], tmp_path, settings)

    block = open_store(tmp_path).blocks["toy.hash"]
    assert block.sealed
    status = block.status[:, 0]
    assert (status[::2] == Status.WRITTEN).all()
    found = Counter(status[1::2].tolist())
    for row in range(n_images):
        if row % 2 == 0:
            rgb = np.zeros((16, 24, 3), np.uint8)
            rgb[:, :12, 0], rgb[:, 12:, 0], rgb[..., 1] = row // 256, row % 256, 77
        elif row % 101 == 0:
            assert status[row] == Status.MISSING
            continue
        else:
            rgb = alone(source.read(row))
        assert (status[row] == Status.WRITTEN) == (rgb is not None), row
        if rgb is not None:
            digest = hashlib.sha512(repr(rgb.shape).encode() + rgb.tobytes()).digest()
            assert np.array_equal(block.vectors[row, 0], np.frombuffer(digest, np.int8)), row
    assert found[Status.PENDING] == 0
    assert found[Status.TRUNCATED] > 50
    assert found[Status.UNDECODABLE] > 50
    assert sum(summary.blocks["toy.hash"].values()) == n_images
    if watched:  # one image of the largest size that is read takes 0.5 GiB, and its copies as much again
        assert peak_mib() - before < 1536


@pytest.mark.filterwarnings("ignore")
def test_the_fast_decoder_refuses_what_the_reference_refuses(photos):
    """Of whole files both decoders give the same verdict; of damaged ones, neither ever raises anything else."""
    source, decoders = (
        Files(400, photos["chelsea"][60:100, 80:140]),
        [make_decoder("torchvision"), make_decoder("pillow")],
    )
    verdicts: Counter[tuple[bool, bool]] = Counter()
    for row in range(1, 400, 2):
        if row % 101:
            fast, pillow = (verdict_of(decode, source.read(row)) for decode in decoders)
            assert {fast, pillow} <= {Status.WRITTEN, Status.TRUNCATED, Status.UNDECODABLE, Status.TOO_LARGE}
            verdicts[fast == Status.WRITTEN, pillow == Status.WRITTEN] += 1
    assert verdicts[True, True] > 10
    assert verdicts[False, False] > 50
    assert verdicts[True, False] + verdicts[False, True] <= 6, verdicts
