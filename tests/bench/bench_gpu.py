"""What only a GPU can tell, most important first, by the product's own commands and random weights, in ten minutes.

``make bench-gpu``, or ``python -m tests.bench gpu``; ``make bench-gpu DEVICE=cpu`` is a dry run with few images. Each
step is a child process with a time limit; a step that no longer fits into the ten minutes is skipped and says so.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.bench.results import cosines

DEADLINE = float(os.environ.get("DEADLINE", "570"))  # seconds
DEVICE = os.environ.get("DEVICE", "cuda")
DRY = DEVICE == "cpu"
N_IMAGES, BATCH, HUGE = (24, 4, 64) if DRY else (2048, 128, 16384)
NETWORKS = (
    ("efficientnet_lite0", "timm:test_vit", "timm:test_resnet")
    if DRY
    else ("efficientnet_b2", "resnet152", "inception_v3", "clip_vit_l14")
)
ONE = NETWORKS[-2]
N_PARITY = min(N_IMAGES, 128)


@dataclass
class Script:
    """The steps of one call, and what they found."""

    folder: Path
    started: float = field(default_factory=time.monotonic)
    failed: list[str] = field(default_factory=list)

    def step(self, title: str, limit: float, arguments: list[str], *, expect: int = 0, kill: float = 0) -> None:
        """Run one command; print how it ended and its last lines.

        `expect` is the exit code that is right, `kill` the seconds after which the command is killed on purpose.
        """
        used = time.monotonic() - self.started
        if used + limit > DEADLINE:
            print(f"== {title}: SKIPPED, {used:.0f} s are used", flush=True)
            return
        start, log = time.monotonic(), self.folder / f"{title.replace(' ', '_')}.log"
        with log.open("w") as err:
            child = subprocess.Popen([sys.executable, "-W", "ignore", *arguments], stdout=subprocess.PIPE, stderr=err)
            try:
                out = child.communicate(timeout=kill or limit)[0].decode()
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                out = child.communicate()[0].decode()
        code = child.returncode
        ok = code == expect or (kill and code == -signal.SIGKILL)
        if not ok:
            self.failed.append(title)
        print(f"== {title}: exit code {code} after {time.monotonic() - start:.0f} s{'' if ok else '  FAILED'}")
        shown = [line for line in log.read_text().strip().splitlines() if not line.startswith("warning: ")][-3:]
        for line in [*shown, *summary_of(out)]:
            print("   " + line[:200])
        sys.stdout.flush()

    def extract(self, title: str, limit: float, store: str, encoders: str, *more: str, **how: float) -> None:
        """Run ``extract run`` over the images."""
        arguments = ["-m", "extract", "run", "folder", "--data", str(self.folder / "images"), "--json"]
        arguments += ["--store", str(self.folder / store), "--encoders", encoders, "--weights", "random:0"]
        return self.step(
            title, limit, [*arguments, *(() if "--device" in more else ("--device", DEVICE)), *more], **how
        )

    def compare(self, title: str, one: str, other: str) -> None:
        """Say whether two stores hold equal vectors, to the byte, or how far they are apart."""
        from features_store import open_store

        if not all((self.folder / name / "index.h5").exists() for name in (one, other)):
            print(f"   {title}: not compared, a store is missing")
            return
        left, right = (open_store(self.folder / name).blocks for name in (one, other))
        for block in sorted(left.keys() & right.keys()):
            both = (left[block].status[:, 0] == 1) & (right[block].status[:, 0] == 1)
            first, second = (np.asarray(blocks[block].vectors)[both, 0] for blocks in (left, right))
            words = "equal to the byte"
            if not len(first):
                words = "NOTHING TO COMPARE"
                self.failed.append(title)
            elif first.tobytes() != second.tobytes():
                words = f"cosine at least {cosines(first, second).min():.7f}"
            print(f"   {title}, {block}, {len(first)} images: {words}", flush=True)


def summary_of(out: str) -> list[str]:
    """Return what a command printed: the summary that ``--json`` gives in two lines, all else as it is."""
    lines = out.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        return lines[-12:]
    found = json.loads(lines[-1])
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in found["parts"].items())
    return [f"{found['images_per_second']:.1f} images/s, bottleneck {found['bottleneck']}", f"seconds: {parts}"]


def make_images(folder: Path) -> None:
    """Write distinct JPEGs of 1,024 pixels, and links to them until there are enough to keep a GPU busy."""
    from PIL import Image
    from skimage import data

    (folder / "a").mkdir(parents=True)
    photos = [Image.fromarray(getattr(data, name)()) for name in ("coffee", "chelsea", "astronaut", "rocket")]
    n_distinct = min(N_IMAGES, 256)
    for at in range(N_IMAGES):
        path = folder / "a" / f"{at:05}.jpg"
        if at < n_distinct:
            photo = photos[at % 4]
            cut = photo.crop((at % 97, at % 89, photo.width - at % 83, photo.height - at % 79))
            cut.resize((1024, 683)).save(path, quality=92)
        else:
            os.link(folder / "a" / f"{at % n_distinct:05}.jpg", path)


def forward_only(images: Path) -> None:
    """Print images/s of the forward passes alone over batches of real pixels that are ready, copies included."""
    from extract.corpora import find_corpus
    from extract.encoders import Weights, build_encoders, find_encoders
    from extract.engines import choose_device
    from extract.engines.forward import Forward
    from extract.inputs.images import make_decoder

    device, decode = choose_device(DEVICE), make_decoder()
    source = find_corpus("folder").read(images).files
    pixels = [decode(source.read(row)) for row in range(min(BATCH, N_IMAGES))]
    forwards = [Forward(network, device) for network in build_encoders(find_encoders(NETWORKS), Weights("random", 0))]
    for one in forwards:
        for _ in range(one.n_slots):
            buffer = one.buffer(len(pixels))
            buffer[:] = np.stack([one.network.prepare(rgb) for rgb in pixels])
            one(buffer)  # chooses kernels
    seconds: dict[str, list[float]] = {}
    for _ in range(5):
        for name, chosen in [("all", forwards), *((one.network.spec.name, [one]) for one in forwards)]:
            start = time.perf_counter()
            waiting = [one.start(one.buffer(len(pixels))) for _ in range(4) for one in chosen]
            for wait in waiting:
                wait()
            seconds.setdefault(name, []).append((time.perf_counter() - start) / 4)
    for name, taken in seconds.items():
        print(f"forward only, {name}: {len(pixels) / statistics.median(taken):.0f} images/s")
    used = device.memory_used()
    print(f"{device.name()}; memory {'of the host' if used is None else f'{used / 2**30:.1f} GiB'}")


def main() -> None:
    """Run the steps; exit with 1 if one of them fails."""
    import torch

    from extract.engines import DEVICES

    if DEVICE not in DEVICES:
        sys.exit(f"DEVICE={DEVICE}: valid: {', '.join(DEVICES)}")
    problem = DEVICES[DEVICE].problem()
    if problem:
        print(f"skipped: {problem}; {DEVICES[DEVICE].remedy()} (a dry run: make bench-gpu DEVICE=cpu)")
        return
    print(f"{DEVICES[DEVICE]().name()}; torch {torch.__version__}, {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as name:
        script = Script(Path(name))
        make_images(script.folder / "images")
        steps(script)
        if script.failed:
            print(f"FAILED: {', '.join(script.failed)}")
            sys.exit(1)


def steps(script: Script) -> None:
    """Ask in the order of importance."""
    batch, four = ("--batch-size", str(BATCH)), ",".join(NETWORKS)
    script.extract("with an encoder without a network", 60, "offline", "lowlevel", *batch, "--limit", "256")
    script.extract("four networks end to end", 150, "whole", four, *batch)
    script.step("forward only", 90, ["-m", "tests.bench.bench_gpu", "forward", str(script.folder / "images")])
    script.extract("killed", 60, "resumed", four, *batch, kill=20 if DRY else 15)
    script.extract("resumed", 120, "resumed", four, *batch)
    script.compare("killed and resumed against undisturbed", "resumed", "whole")
    fails = 0 if DRY else 1  # the memory of a CPU is not tried
    script.extract("too large a batch", 60, "huge", ONE, "--batch-size", str(HUGE), expect=fails)
    script.extract("after it", 45, "huge", ONE, *batch)
    few = ("--precision", "float32", "--limit", str(N_PARITY))
    script.extract("float32", 45, "float32", ONE, *batch, *few)
    script.extract("float32 on the CPU", 75, "cpu", ONE, "--device", "cpu", "--compile", "off", *few)
    script.compare("float32 against the CPU (TF32 would show)", "float32", "cpu")
    script.compare("by itself against the CPU", "whole", "cpu")
    ray = ("--engine", "ray", "--actors", "1", "--limit", str(min(1024, N_IMAGES)))
    script.extract("Ray", 180 if DRY else 90, "ray", ONE, *batch, *ray)
    script.compare("Ray against this process", "ray", "whole")
    script.extract("compiled", 150, "compiled", ONE, *batch, "--compile", "on")
    script.compare("compiled against eager", "compiled", "whole")


if __name__ == "__main__":
    if sys.argv[1:2] == ["forward"]:
        forward_only(Path(sys.argv[2]))
    else:
        main()
