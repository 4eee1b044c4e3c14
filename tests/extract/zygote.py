"""A process that starts the real extraction in forked children and kills them at random instants.

Run by test_durability.py and test_views.py: ``python zygote.py FOLDER N_KILLS SEED N_VIEWS``. Forking a process that
has imported everything makes one life cost milliseconds. The encoder is a toy without torch; the pipeline, the threads,
the writer and SIGKILL are real.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from extract import pipeline
from extract.corpora.dataset import Dataset
from extract.encoders.spec import Encoder, EncoderSpec, Tap
from extract.settings import RunSettings
from features_store import Index, Status, open_store, writer

N_VIEWS = int(sys.argv[4])
N_IMAGES, WIDTH = 150, 32
LONGEST_LIFE = 0.6  # seconds; an undisturbed run takes about 0.4


class Memory:
    """Images that are bytes in memory; every tenth is missing."""

    def __len__(self) -> int:
        return N_IMAGES

    def read(self, row: int) -> bytes:
        """Return the row's number as a picture of one grey level."""
        from extract.errors import RefusedImageError

        if row % 10 == 9:
            raise RefusedImageError(Status.MISSING, "planted")
        return b"P5 4 4 255\n" + bytes([row]) * 16

    def modified(self, row: int) -> float:
        """Nothing is known."""
        return float("nan")


def prepare(rgb: np.ndarray) -> np.ndarray:
    """Give a vector that depends on the picture alone, slowly enough to be killed on the way."""
    time.sleep(0.004 / N_VIEWS)
    digest = hashlib.sha512(rgb.tobytes()).digest()
    return np.frombuffer(digest, dtype=np.int8)[:WIDTH].astype(np.float32)


def run(store: Path) -> None:
    """Make the block, or go on with it."""
    ids = np.array([f"{row:03d}.pgm" for row in range(N_IMAGES)])
    encoder = EncoderSpec("toy", "a hash", "affectory", "", (Tap("hash", (WIDTH,)),), needs_weights=False)
    network = Encoder(encoder, prepare, (WIDTH,), {"hash": (WIDTH,)}, {}, {}, input_dtype="float32")
    settings = RunSettings(device="cpu", views=N_VIEWS, batch_size=4, max_failed="100%")
    pipeline.run(Dataset(Index(ids), Memory()), [network], store, settings)


def live(store: Path, seconds: float | None) -> bool:
    """Run in a child; kill it after some seconds, or never. Returns whether it was killed."""
    child = os.fork()
    if not child:
        try:
            tqdm.set_lock(threading.RLock())  # its own is shared with all children, and dies held by a killed one
            run(store)
            os._exit(0)
        except BaseException as error:  # the parent must see it, whatever it is
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a run ended with an error")
    return os.WIFSIGNALED(status)


def contents(store: Path) -> bytes:
    """Everything that must be equal: vectors of written rows, status, seal."""
    block = open_store(store).blocks["toy.hash"]
    vectors = np.where((block.status == Status.WRITTEN)[:, :, None], block.vectors, 0)
    return vectors.tobytes() + block.status.tobytes() + block.stored_seal


def rows_are_whole(store: Path, reference: Path) -> None:
    """After a kill the file opens, and each vector that says it is written is equal to the undisturbed one."""
    if not (store / "toy.hash.h5").exists():
        return
    found, expected = open_store(store).blocks["toy.hash"], open_store(reference).blocks["toy.hash"]
    written = found.status == Status.WRITTEN  # view by view: a kill may fall between two of one image
    if not np.array_equal(found.vectors[written], expected.vectors[written]):
        raise SystemExit("a torn row")
    decided = found.status != Status.PENDING
    if not np.array_equal(found.status[decided], expected.status[decided]):
        raise SystemExit("a wrong status")


def main(folder: Path, n_kills: int, seed: int) -> None:
    """Kill and resume until enough lives were lost; print how many, and in how many stores."""
    writer._COMMIT_SECONDS = 0.03  # many commits in a short life, so that kills fall between their steps
    chance = random.Random(seed)
    reference = folder / "reference"
    run(reference)  # in this process, whose children then have everything imported
    kills = stores = resumed = 0
    while kills < n_kills:
        store, stores = folder / f"killed-{stores}", stores + 1
        lives = 0
        while live(store, chance.uniform(0.0, LONGEST_LIFE) if lives < 8 else None):
            kills, lives = kills + 1, lives + 1
            rows_are_whole(store, reference)
        resumed += lives > 0
        if contents(store) != contents(reference):
            raise SystemExit("the resumed block differs")
        shutil.rmtree(store)
    print(kills, stores, resumed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
