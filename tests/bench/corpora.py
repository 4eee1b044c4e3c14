"""Read the index of a corpus as large as B-T4SA, from its folder and from its tar, in fresh processes.

``python tests/bench/corpora.py`` prints seconds and peak memory. The tar is sparse: its members have the real number,
names and sizes (134 kB), but only their headers take space: 1.9 GB, in memory where there is /dev/shm. So what is
measured is the program; on a disk that has to seek to 470,586 headers, add that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

SIZES = {"train": 368_586, "val": 51_000, "test": 51_000}
N_BYTES = 134_000  # 63 GB over 470,586 images
READ = """
import json, resource, sys, time
from pathlib import Path
from extract.corpora import find_corpus
import numpy
start, cpu = time.perf_counter(), time.process_time()
reading = find_corpus("b-t4sa").read(Path(sys.argv[1]))
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
reading.files.read(len(reading.index) - 1)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
found = {"images": len(reading.index), "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}
print(json.dumps({**found, "peak_mib": round(peak)}))
"""


def write_lists(folder: Path) -> list[str]:
    """Write three lists; four images a tweet."""
    names: list[str] = []
    for part, size in SIZES.items():
        rows = []
        for at in range(len(names), len(names) + size):
            tweet = 768840000000000000 + (at // 4) * 70_000_000_003
            rows.append(f"data/{str(tweet)[:5]}/{tweet}-{at % 4 + 1}.jpg")
        (folder / f"b-t4sa_{part}.txt").write_text("".join(f"{row} {at % 3}\n" for at, row in enumerate(rows)))
        names += rows
    return names


def write_tar(path: Path, folder: Path, names: list[str]) -> None:
    """Write a sparse tar: lists first, then members that are all holes."""
    with path.open("wb") as file:
        for part in SIZES:
            name = f"b-t4sa_{part}.txt"
            info = tarfile.TarInfo(f"b-t4sa_imgs/{name}")
            data = (folder / name).read_bytes()
            info.size = len(data)
            file.write(info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512))
        step = N_BYTES + -N_BYTES % 512
        for name in names:
            info = tarfile.TarInfo(f"b-t4sa_imgs/{name}")
            info.size = N_BYTES
            file.write(info.tobuf(tarfile.GNU_FORMAT))
            file.seek(step, 1)
        file.write(bytes(1024))


def measure(data: Path) -> dict[str, float]:
    """Read a corpus in a fresh process."""
    done = subprocess.run([sys.executable, "-c", READ, str(data)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Make both, measure each three times, print JSON."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as temporary:
        folder = Path(temporary) / "b-t4sa_imgs"
        folder.mkdir()
        names = write_lists(folder)
        last = folder / names[-1]
        last.parent.mkdir(parents=True)
        last.write_bytes(b"x" * 100)
        tar = Path(temporary) / "b-t4sa_imgs.tar"
        write_tar(tar, folder, names)
        report = {"folder": [measure(folder) for _ in range(3)], "tar": [measure(tar) for _ in range(3)]}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
