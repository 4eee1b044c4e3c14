"""The store against raw memory maps, h5py (contiguous, and chunked with gzip) and .npy, side by side in one run.

``python -m tests.bench store`` prints one table. Times are medians; in each round every competitor runs once, in turn.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import numpy as np

import features_store as fs
from tests.bench.results import medians, record

N_IMAGES, WIDTH, N_ROWS = 40_000, 2048, 4096
N_INDEX = 470_586  # images of B-T4SA


def make_files(folder: Path) -> None:
    """Write the same half-precision matrix as a dump, as .npy, and as two kinds of plain HDF5."""
    index = fs.Index(np.array([f"{i}.jpg" for i in range(N_IMAGES)]))
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((N_IMAGES, WIDTH)).astype(np.float16)
    with fs.BlockWriter(folder / "dump.h5", index, fs.BlockSpec("b", (WIDTH,), {})) as writer:
        writer.write(np.arange(N_IMAGES), matrix)
    np.save(folder / "matrix.npy", matrix)
    with h5py.File(folder / "plain.h5", "w") as file:
        file["contiguous"] = matrix
        file.create_dataset("gzip", data=matrix, chunks=(256, WIDTH), compression="gzip")


def gather(folder: Path) -> dict[str, float]:
    """Time 4,096 random rows as half precision, all into memory that is there already where the competitor can."""
    block = fs.open_store(folder / "dump.h5").block("b")
    rows = np.random.default_rng(1).permutation(N_IMAGES)[:N_ROWS]
    ascending = np.sort(rows)
    out = np.empty((N_ROWS, WIDTH), np.float16)
    raw = np.memmap(folder / "dump.h5", "<f2", "r", offset=block.offsets["vectors"], shape=(N_IMAGES, WIDTH))
    npy = np.load(folder / "matrix.npy", mmap_mode="r")
    with h5py.File(folder / "plain.h5", "r") as file:
        return medians(
            {
                "store": lambda: block.gather(rows, out),
                "raw memmap": lambda: raw[rows],
                ".npy memmap": lambda: npy[rows],
                "h5py contiguous": lambda: file["contiguous"][ascending],
                "h5py chunked gzip": lambda: file["gzip"][ascending],
            },
            rounds=5,
        )


def scan(folder: Path) -> dict[str, float]:
    """Time reading everything, as single precision, through a reused buffer of 1,024 rows."""
    block = fs.open_store(folder / "dump.h5").block("b")
    buffer = np.empty((1024, WIDTH), np.float32)
    pieces = [np.arange(start, min(start + 1024, N_IMAGES)) for start in range(0, N_IMAGES, 1024)]
    raw = np.memmap(folder / "dump.h5", "<f2", "r", offset=block.offsets["vectors"], shape=(N_IMAGES, WIDTH))
    npy = np.load(folder / "matrix.npy", mmap_mode="r")

    def copy(source: np.ndarray) -> None:
        for piece in pieces:
            buffer[: len(piece)] = source[piece[0] : piece[-1] + 1]

    def ours() -> None:
        for piece in pieces:
            block.gather(piece, buffer[: len(piece)])

    with h5py.File(folder / "plain.h5", "r") as file:
        return medians(
            {
                "store": ours,
                "raw memmap": lambda: copy(raw),
                ".npy memmap": lambda: copy(npy),
                "h5py contiguous": lambda: copy(file["contiguous"]),
                "h5py chunked gzip": lambda: copy(file["gzip"]),
            },
            rounds=3,
        )


def write(folder: Path) -> dict[str, float]:
    """Time writing rows in batches of 64, durably, against a plain file with the same bytes and one fsync."""
    import os

    index = fs.Index(np.array([f"{i}.jpg" for i in range(N_IMAGES)]))
    batch = np.random.default_rng(0).standard_normal((64, WIDTH)).astype(np.float16)
    path = folder / "written"

    def ours() -> None:
        path.unlink(missing_ok=True)
        with fs.BlockWriter(path, index, fs.BlockSpec("b", (WIDTH,), {})) as writer:
            for start in range(0, N_IMAGES, 64):
                writer.write(np.arange(start, start + 64), batch)

    def plain() -> None:
        path.unlink(missing_ok=True)
        with path.open("wb", buffering=0) as file:
            for _ in range(0, N_IMAGES, 64):
                file.write(batch.data)
            os.fsync(file.fileno())

    return medians({"store": ours, "plain write": plain}, rounds=5)


def open_large(folder: Path) -> float:
    """Time opening an index of 470,586 images with all checks."""
    ids = np.array([f"data/{i // 10_000:05d}/{758014713804587008 + i}-1.jpg" for i in range(N_INDEX)])
    fs.write_index(folder / "large.h5", fs.Index(ids))
    return medians({"open": lambda: fs.open_store(folder / "large.h5")}, rounds=5)["open"]


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder)
        for title, measured in (
            (f"gather of {N_ROWS:,} random rows of {N_IMAGES:,} x {WIDTH}", gather(folder)),
            ("full scan into single precision", scan(folder)),
            ("write in batches of 64, durable", write(folder)),
        ):
            print(f"\n{title}")
            for competitor, seconds in measured.items():
                ratio = seconds / measured["store"]
                print(f"  {competitor:<20} {1000 * seconds:9.1f} ms   store is {ratio:7.2f}x as fast")
                record("store", title, **{competitor: (ratio, "of the store's time")})
        seconds = open_large(folder)
        print(f"\nopen an index of {N_INDEX:,} images: {seconds:.2f} s")
        record("store", f"open an index of {N_INDEX:,} images, with all checks", store=(seconds, "s"))


if __name__ == "__main__":
    main()
