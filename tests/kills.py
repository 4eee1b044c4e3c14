"""Every writing command, killed between its file operations: ``python tests/kills.py [--kills N] [COMMAND...]``.

Each kill is a SIGKILL before one operation that changes a folder (a file opened for writing, renamed, removed, a folder
made or removed). Afterwards every file that was there is whole: the old one, or the new one. Then the same command
is given again: it ends well, with the files and the bytes of a run that nobody killed, and leaves nothing else behind.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from features_store import open_store
from tests.command import run_program

CHANGES = frozenset(
    {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "shutil.move", "shutil.rmtree"}
)
MINUTE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC")  # of pages
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
SECONDS = 120
EXTRACT = "extract run folder --data pictures --encoders lowlevel --store features/pictures --device cpu"
RUN = "classify run features/pictures --task label --head linear --out runs/linear"
PREPARE = (EXTRACT, RUN, RUN.replace("linear", "svm"), "classify explain runs/linear --limit 8 --check --data pictures")
COMMANDS = {
    "info": "features-store verify features/pictures --write-list",
    "subset": "features-store subset features/pictures --sample 10 -o new.h5",
    "subset again": "features-store subset features/pictures --sample 9 -o old.h5 --force",
    "merge": "features-store merge features/pictures/index.h5 cut.h5 -o new.h5",
    "splits": "features-store splits features/pictures --task label --folds 3 -n folds -o features/pictures/f.h5",
    "relabel": "features-store relabel features/pictures features/pictures -o new.h5",
    "import": "features-store import features/pictures matrix.npz --ids-key ids --key x -n m -o features/pictures/m.h5",
    "export": "features-store export features/pictures -o new.npz",
    "extract": EXTRACT.replace("features/", "features/new-"),
    "check": "extract check folder --data pictures --page new.html",
    "check again": "extract check folder --data pictures --page old.html --force",
    "fit": "extract fit emosepar --corpus folder --data pictures --task label --set epochs=1 --out fitted",
    "run": RUN.replace("runs/linear", "runs/new"),
    "run again": RUN + " --seed 3 --force",
    "mlp": "classify run features/pictures --task label --head mlp --set epochs=3 --set hidden=[4] --out runs/mlp",
    "sweep": "classify sweep grid.toml --out runs/grid",
    "search": "classify search features/pictures --task label --head svm --trials 3 --out runs/search",
    "evaluate": "classify evaluate runs/linear features/other --out runs/evaluated",
    "report": "classify report runs -o new.html",
    "report again": "classify report runs -o old.html --force",
    "ablate": "classify ablate features/pictures --task label --out runs/ablation.json",
    "audit": "classify audit features/pictures --task label --out runs/audit.json",
    "learning-curve": "classify learning-curve runs/linear --points 2 --repeats 1",
    "seeds": "classify seeds runs/linear --n 2",
    "explain": "classify explain runs/svm --limit 8 --check --data pictures",
    "explain again": "classify explain runs/linear --limit 8 --check --data pictures --force",
    "bundle": "classify bundle runs/linear -o new.zip",
    "bundle again": "classify bundle runs/linear -o old.zip --force",
}


def make_world(folder: Path) -> None:
    """Make pictures, a store, runs, and whatever the commands read or replace, in the working folder."""
    from PIL import Image

    os.chdir(folder)
    random = np.random.default_rng(0)
    for i in range(60):
        path = Path("pictures", ("blue", "red", "green")[i % 3], f"{i:02}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 120, (48, 48, 3), dtype=np.uint8)
        pixels[:, :, (2, 0, 1)[i % 3]] += 100
        Image.fromarray(pixels).save(path)
    for line in PREPARE:
        run_well(line)
    shutil.copytree("pictures", "other")
    for path in Path("other").rglob("*.jpg"):
        path.rename(path.with_name(f"other-{path.name}"))
    run_well(EXTRACT.replace("--data pictures", "--data other").replace("features/pictures", "features/other"))
    run_well("features-store subset features/pictures --sample 5 -o old.h5")
    run_well("features-store subset features/pictures --no-blocks -o cut.h5")
    run_well("classify bundle runs/svm -o old.zip")
    Path("old.html").write_text("old")
    ids = open_store("features/pictures").index.ids
    np.savez("matrix.npz", ids=np.array(ids), x=random.normal(size=(len(ids), 4)))
    Path("grid.toml").write_text(
        'task = "label"\nstore = "features/pictures"\n[[grid]]\nhead = "linear"\nset.C = [0.1, 1.0]\n'
    )


def run_well(line: str) -> None:
    """Run a command in this process, which must end well."""
    ended = run_program(*shlex.split(line))
    if ended.code:
        raise SystemExit(f"{line}: exit code {ended.code}\n{ended.err or ended.out}")


def child(line: str, kill_before: int | None, counted: Path | None = None) -> int | None:
    """Run a command in a child process, killed before its Nth operation; return its exit code, None if killed."""
    pid = os.fork()
    if not pid:
        seen = 0

        def count(event: str, arguments: tuple) -> None:
            nonlocal seen
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
            if writes and str(arguments[0]).startswith("/dev/"):
                return
            if writes or event in CHANGES:
                seen += 1
                if seen == kill_before:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        signal.alarm(SECONDS)
        ended = run_program(*shlex.split(line))
        if counted is not None:
            counted.write_text(str(seen))
        if ended.code:
            sys.stderr.write(f"{line}: {ended.err or ended.out}\n")
        os._exit(ended.code)
    status = os.waitpid(pid, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    return None if code == -signal.SIGKILL else code


def contents() -> dict[str, str]:
    """Return a digest of every file below the working folder, less the minute it was made in; of others the name."""
    found = {}
    for path in sorted(Path().rglob("*")):
        plain = path.is_file() and not path.name.endswith(".lock")
        found[str(path)] = hashlib.sha256(MINUTE.sub(b"", path.read_bytes())).hexdigest() if plain else ""
    return {name: digest for name, digest in found.items() if not name.endswith(".lock")}


def instants(n: int, kills: int) -> Iterator[int]:
    """Yield at most *kills* of the numbers from 1 to *n*, the last among them."""
    yield from sorted({round(x) for x in np.linspace(1, n, min(n, kills))})


def try_command(name: str, world: Path, scratch: Path, kills: int) -> tuple[int, int]:
    """Kill one command at its instants; return how many there are, and how many kills were made. Faults end the run."""
    line = COMMANDS[name]

    def fresh() -> dict[str, str]:
        os.chdir(scratch)
        shutil.rmtree("world", ignore_errors=True)
        shutil.copytree(world, "world")
        os.chdir("world")
        return contents()

    before, ends = fresh(), []
    for _ in range(2):
        fresh()
        if child(line, None, scratch / "count"):
            raise SystemExit(f"{name}: does not end well undisturbed")
        ends.append(contents())
    settled = {path for path in ends[0] if ends[0][path] == ends[1].get(path)}
    made = 0
    n = int((scratch / "count").read_text())
    for instant in instants(n, kills):
        fresh()
        code = child(line, instant)
        if code is not None:
            if code:
                raise SystemExit(f"{name}, before operation {instant} of {n}: exit code {code}")
            continue
        made += 1
        for path, digest in contents().items():
            replaced = path in ends[0] and ends[0][path] != before.get(path)
            if path in before and digest != before[path] and not replaced:
                raise SystemExit(f"{name}, killed before operation {instant} of {n}: {path} is another")
            if path in before and path in settled and digest not in (before[path], ends[0][path]):
                raise SystemExit(f"{name}, killed before operation {instant} of {n}: {path} is neither old nor new")
        lost = [path for path in before if path in ends[0] and not Path(path).exists()]
        if lost and sys.platform == "linux":
            raise SystemExit(f"{name}, killed before operation {instant} of {n}: lost {lost[0]}")
        done_before = contents() == ends[0]
        code = child(line, None)
        if code not in ((0, 2) if done_before or all(p in contents() for p in ends[0]) else (0,)):
            raise SystemExit(f"{name}, killed before operation {instant} of {n}, then repeated: exit code {code}")
        after = contents()
        if set(after) != set(ends[0]):
            odd = sorted(set(after) ^ set(ends[0]))
            raise SystemExit(f"{name}, killed before operation {instant} of {n}, then repeated: {odd[:5]}")
        other = [path for path in settled if after[path] != ends[0][path]]
        if other:
            raise SystemExit(f"{name}, killed before operation {instant} of {n}, then repeated: {other[0]} differs")
    return n, made


def main() -> None:
    """Make the world, and kill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--kills", type=int, default=15, help="of each command")
    asked = parser.parse_args()
    for module in ("extract.__main__", "classify.__main__", "features_store.__main__", "lightgbm", "sklearn.svm"):
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        world, scratch = Path(folder, "world"), Path(folder, "scratch")
        world.mkdir()
        scratch.mkdir()
        pid = os.fork()  # so that this process, which others are forked from, never starts a thread
        if not pid:
            make_world(world)
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            sys.exit("the world could not be made")
        total = 0
        faults = []
        for name in asked.commands or COMMANDS:
            try:
                n, made = try_command(name, world, scratch, asked.kills)
            except SystemExit as fault:
                faults.append(str(fault))
                print(f"{name:16} FAULT {fault}", flush=True)
                continue
            total += made
            print(f"{name:16} {n:4} operations, {made:3} kills", flush=True)
        print(f"{total} kills")
        os.chdir("/")
        if faults:
            sys.exit(1)


if __name__ == "__main__":
    main()
