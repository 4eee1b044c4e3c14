"""A self-check of extraction on CUDA: parity with the CPU, images/s per network and together, share of a busy GPU.

``make bench-gpu``, or ``python -m tests.bench gpu``; says so and ends well where there is no CUDA device.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from extract import pipeline
from extract.corpora import Reading, find_corpus
from extract.encoders import Network, Weights, build_networks, find_encoders
from extract.forward import BATCH_SIZES, Forward, autocast_dtype
from extract.images import make_decoder
from extract.passports import Circumstances

NAMES = ("efficientnet_b2", "resnet152", "inception_v3", "open_clip:ViT-L-14/openai")
N_IMAGES, N_DISTINCT, N_PARITY = 4096, 64, 16
MIN_COSINE = 0.999  # half precision on the GPU against single precision on the CPU


def make_images(folder: Path) -> None:
    """Write distinct JPEGs of 800 pixels, and links to them until there are enough to keep a GPU busy."""
    import os

    from PIL import Image
    from skimage import data

    (folder / "a").mkdir(parents=True)
    for at in range(N_IMAGES):
        path = folder / "a" / f"{at:05}.jpg"
        if at < N_DISTINCT:
            photo = Image.fromarray((data.coffee, data.chelsea, data.astronaut, data.rocket)[at % 4]())
            photo.crop((at, at, photo.width - at, photo.height - at)).resize((800, 533)).save(path, quality=90)
        else:
            os.link(folder / "a" / f"{at % N_DISTINCT:05}.jpg", path)


def parity(network: Network, reading: Reading) -> dict[str, float]:
    """Return by tap the worst cosine between the vectors of the two devices over some images."""
    decode = make_decoder()
    batch = np.stack([network.prepare(decode(reading.source.read(row))) for row in range(N_PARITY)])
    on_cpu = Forward(network, "cpu")(batch)
    on_gpu = Forward(network, "cuda")(batch)
    worst = {}
    for tap in on_cpu:
        one, other = (vectors[tap].reshape(N_PARITY, -1).astype(np.float64) for vectors in (on_cpu, on_gpu))
        cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        worst[tap] = float(cosines.min())
    return worst


def ready_rate(networks: list[Network]) -> float:
    """Return images/s of the forward passes alone, over tensors that are there, the copies to and fro included."""
    size = BATCH_SIZES["cuda"]
    forwards = [Forward(network, "cuda") for network in networks]
    for one in forwards:
        one(one.buffer(size))  # chooses kernels
    times = []
    for _ in range(5):
        start = time.perf_counter()
        waiting = [one.start(one.buffer(size)) for _ in range(4) for one in forwards]
        for wait in waiting:
            wait()
        times.append((time.perf_counter() - start) / 4)
    return size / statistics.median(times)


def run_rate(networks: list[Network], reading: Reading, store: Path) -> float:
    """Return images/s of extraction, end to end."""
    made = Circumstances("cuda", autocast_dtype("cuda"))
    summary = pipeline.run(reading, networks, store, pipeline.Settings(made, BATCH_SIZES["cuda"], progress=False))
    print("    " + summary.lines()[1], flush=True)
    return summary.images_per_second


def main() -> None:
    """Print the check; exit with 1 if the vectors of the two devices are not the same."""
    import torch

    if not torch.cuda.is_available():
        print("skipped: torch sees no CUDA device here")
        return
    devices = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
    print(f"{', '.join(devices)}; torch {torch.__version__}, autocast {autocast_dtype('cuda')}")
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "images")
        reading = find_corpus("folder").read(folder / "images")
        networks = build_networks(find_encoders(NAMES), Weights("random", 0))
        for network in networks:
            for tap, cosine in parity(network, reading).items():
                print(f"  {network.encoder.name}.{tap}: cosine to the CPU at least {cosine:.6f}", flush=True)
                failed += [tap] if cosine < MIN_COSINE else []
        for at, chosen in enumerate([*([one] for one in networks), networks]):
            title = chosen[0].encoder.name if len(chosen) == 1 else "all four"
            ready, end = ready_rate(chosen), run_rate(chosen, reading, folder / f"store{at}")
            print(f"  {title}: {end:.0f} images/s end to end, {ready:.0f} forward only; GPU busy {end / ready:.0%}")
    if failed:
        print(f"PARITY FAILS: {', '.join(failed)} below a cosine of {MIN_COSINE}")
        sys.exit(1)


if __name__ == "__main__":
    main()
