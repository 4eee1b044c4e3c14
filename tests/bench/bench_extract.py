"""Extraction against one network after another, against the forward pass alone, and against timm's transforms.

``python -m tests.bench extract`` prints one table. Weights are random, which changes no time. Each competitor runs once
a round, in turn, and medians are compared, so that a busy machine slows all alike. The plain loop runs with the batch
of 32 that thingsvision's documentation gives, and with ours. Environment: AFFECTORY_BENCH_CLIP (default ViT-B-32;
ViT-L-14 is the one of the profile `fusion`), AFFECTORY_BENCH_IMAGES, AFFECTORY_BENCH_ROUNDS, AFFECTORY_BENCH_COMPILE
(default auto, as if for a large corpus), AFFECTORY_BENCH_PRECISIONS (the others only where there are matrix units).
"""

from __future__ import annotations

import importlib.util
import io
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from extract import pipeline
from extract.corpora import Dataset, find_corpus
from extract.encoders import Encoder, Weights, build_encoders, find_encoders
from extract.engines import Cpu
from extract.engines.cpu import ForwardPool
from extract.engines.forward import Forward, compile_if_faster
from extract.engines.local import LocalEngine
from extract.inputs.images import make_decoder
from extract.settings import RunSettings
from tests.bench.results import medians, record

CLIP = os.environ.get("AFFECTORY_BENCH_CLIP", "ViT-B-32")
N_IMAGES = int(os.environ.get("AFFECTORY_BENCH_IMAGES", "96"))
ALONE = 4 * N_IMAGES  # for one network alone, so that a round is not over in a second
ROUNDS = int(os.environ.get("AFFECTORY_BENCH_ROUNDS", "3"))
COMPILE = os.environ.get("AFFECTORY_BENCH_COMPILE", "auto")
PRECISIONS = os.environ.get("AFFECTORY_BENCH_PRECISIONS", "float32,bfloat16").split(",")
BATCH, THINGSVISION_BATCH = 8, 32
LARGE = 400_000  # images that compiling has to repay
WIDTH, WIDTHS = 1024, (640, 800, 1024)  # pixels; of 1,024, a file has 136 kB, and those of B-T4SA have 134
NAMES = ("efficientnet_b2", "resnet152", "inception_v3", f"open_clip:{CLIP}/openai")


def make_images(folder: Path, width: int, n_images: int) -> None:
    """Write JPEGs cut from photographs that ship with scikit-image and scikit-learn."""
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_image

    photos = [data.coffee(), data.chelsea(), data.astronaut(), np.asarray(load_sample_image("china.jpg"))]
    (folder / "a").mkdir(parents=True)
    for at in range(n_images):
        photo, edge = Image.fromarray(photos[at % 4]), at % 97
        photo = photo.crop((edge, edge, photo.width - edge, photo.height - edge))
        size = (width, round(width * photo.height / photo.width))
        photo.resize(size).save(folder / "a" / f"{at:03}.jpg", quality=90)


def library_transform(network: Encoder) -> Callable[..., object]:
    """Return the transform that the library of a network gives its users."""
    if network.spec.library == "open_clip":
        import open_clip

        return open_clip.image_transform(224, is_train=False)
    from timm.data import create_transform, resolve_data_config

    return create_transform(**resolve_data_config({}, model=network.module))


class PlainLoops:
    """Do as thingsvision does: images loaded one by one in the main process, eager, channels first, one network.

    They run in a process of their own: how our forward passes set its allocator is not theirs to gain from.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        self._ours.recv()

    def run(self, names: Sequence[str], paths: list[Path], batch_size: int) -> None:
        """Make the vectors of some images with one network after another."""
        self._ours.send((names, paths, batch_size))
        self._ours.recv()


def _serve(connection: Connection) -> None:
    import torch
    from PIL import Image

    warnings.simplefilter("ignore")
    networks = {one.spec.name: one for one in build_encoders(find_encoders(NAMES), Weights("random", 0))}
    transforms = {name: library_transform(network) for name, network in networks.items()}
    connection.send("ready")
    while True:
        try:
            names, paths, batch_size = connection.recv()
        except EOFError:
            return
        with torch.inference_mode():
            for name in names:
                for start in range(0, len(paths), batch_size):
                    chosen = paths[start : start + batch_size]
                    images = [transforms[name](Image.open(path).convert("RGB")) for path in chosen]
                    networks[name].outputs(networks[name].module, torch.stack(images))
        connection.send("done")


class Ready:
    """A pipeline whose networks are compiled once for all rounds."""

    def __init__(self, networks: list[Encoder], reading: Dataset, folder: Path, precision: str) -> None:
        self.device, start = Cpu(pool=ForwardPool()), time.perf_counter()
        how = {"batch_size": BATCH, "mode": COMPILE, "precision": precision}
        self.forwards = [compile_if_faster(network, self.device, LARGE, **how) for network in networks]
        print(f"compiled in {time.perf_counter() - start:.0f} s", flush=True)
        self.networks, self.reading, self.folder, self.n_runs = networks, reading, folder / precision, 0
        self.settings = RunSettings(device="cpu", precision=precision, batch_size=BATCH)

    def run(self, names: Sequence[str], n_images: int) -> None:
        """Extract some images with some networks into a new store, with the forward passes that are there."""
        networks = [one for one in self.networks if one.spec.name in names]
        forwards = {one.network.spec.name: one for one in self.forwards}
        self.n_runs += 1
        settings = replace(self.settings, limit=n_images)
        engine = LocalEngine(settings, self.device, forwards)
        pipeline.run(self.reading, networks, self.folder / str(self.n_runs), settings, engine)

    def forward_only(self, names: Sequence[str], n_images: int) -> Callable[[], None]:
        """Return the same forward passes over ready tensors, which are made now."""
        chosen = [one for one in self.forwards if one.network.spec.name in names]
        rng = np.random.default_rng(0)
        for one in chosen:
            for _ in range(one.n_slots):
                buffer = one.buffer(BATCH)
                buffer[:] = rng.integers(0, 256, (BATCH, *one.network.input_shape))
                one(buffer)

        def work() -> None:
            waiting = [one.start(one.buffer(BATCH)) for _ in range(0, n_images, BATCH) for one in chosen]
            for wait in waiting:
                wait()

        return work


def prepare_per_core(networks: list[Encoder], files: list[bytes]) -> dict[str, float]:
    """Time decoding and all four transforms on one core, by the processor's own clock: images/s."""
    import torch
    from PIL import Image

    decode = make_decoder()
    batches = [Forward(network, Cpu()).buffer(1) for network in networks]
    theirs = [library_transform(network) for network in networks]

    def ours(one: bytes) -> None:
        rgb = decode(one)
        for network, batch in zip(networks, batches, strict=True):
            batch[0] = network.prepare(rgb)

    def normalised(one: bytes) -> None:
        ours(one)
        for network, batch in zip(networks, batches, strict=True):
            network.normalise(torch.from_numpy(batch))

    def each(one: bytes) -> None:
        for transform in theirs:
            transform(Image.open(io.BytesIO(one)).convert("RGB"))

    times: dict[str, list[float]] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for one in files * 5:
        for name, work in (("ours", ours), ("ours, floats made too", normalised), ("timm, four times", each)):
            start = time.thread_time()
            work(one)
            times.setdefault(name, []).append(time.thread_time() - start)
    torch.set_num_threads(threads)
    return {name: 1 / statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    """Print the table."""
    import torch

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "images", WIDTH, ALONE)
        paths = sorted((folder / "images").rglob("*.jpg"))
        n_bytes = statistics.mean(path.stat().st_size for path in paths)
        reading = find_corpus("folder").read(folder / "images")
        networks = build_encoders(find_encoders(NAMES), Weights("random", 0))
        print(f"{torch.get_num_threads()} threads, batches of {BATCH}, {', '.join(NAMES)}")
        for width in WIDTHS:
            make_images(folder / f"{width}", width, 16)
            files = [path.read_bytes() for path in sorted((folder / f"{width}").rglob("*.jpg"))]
            per_core = prepare_per_core(networks, files)
            print(f"\ndecode and four transforms, JPEGs of {width} pixels, images/s of one core")
            for title, rate in per_core.items():
                print(f"  {title:<34} {rate:8.1f}   ours is {per_core['ours'] / rate:5.2f}x as fast", flush=True)
                case = f"decode and four transforms on one core, JPEGs of {width} pixels"
                record("extract", case, **{title: (rate, "images/s")})
        print(f"\nfrom here on: JPEGs of {WIDTH} pixels, {n_bytes / 1000:.0f} kB on average")
        loops = PlainLoops()
        for precision in PRECISIONS if _has_matrix_units() else PRECISIONS[:1]:
            ready = Ready(networks, reading, folder, precision)
            compare(ready, loops, NAMES[:1], paths, precision)
            compare(ready, loops, NAMES, paths[:N_IMAGES], precision)
        print("\nthingsvision: " + ("importable; its loop is the plain one above" if _has_thingsvision() else _WHY))


def compare(ready: Ready, loops: PlainLoops, names: Sequence[str], paths: list[Path], precision: str) -> None:
    """Print images/s of extraction with some networks, of their forward passes alone, and of plain loops in float32."""
    competitors = {
        f"end to end, {precision}": lambda: ready.run(names, len(paths)),
        "forward only, ready tensors": ready.forward_only(names, len(paths)),
        f"plain loop, batches of {THINGSVISION_BATCH}": lambda: loops.run(names, paths, THINGSVISION_BATCH),
        f"plain loop, batches of {BATCH}": lambda: loops.run(names, paths, BATCH),
    }
    found = {name: len(paths) / seconds for name, seconds in medians(competitors, ROUNDS).items()}
    ours = next(iter(found.values()))
    print(f"\n{', '.join(names)}: images/s over {len(paths)} images")
    for title, rate in found.items():
        print(f"  {title:<34} {rate:8.2f}   end to end is {ours / rate:5.2f}x as fast", flush=True)
        record("extract", ", ".join(names), **{title: (rate, "images/s")})


_WHY = (
    "not importable; it pins torchvision 0.15.2 and cannot stand beside this torch. The plain loop does what its does."
)


def _has_matrix_units() -> bool:
    """Tell whether this processor multiplies matrices of bfloat16 in hardware (AMX)."""
    import torch

    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def _has_thingsvision() -> bool:
    return importlib.util.find_spec("thingsvision") is not None


if __name__ == "__main__":
    main()
