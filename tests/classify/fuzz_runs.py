"""Mutation fuzzing of what a run is shared as: reports, predictions, bundles, trees and sweep files.

``python tests/classify/fuzz_runs.py --seconds 60`` works through numbered mutations in this process. A mutation is
good if it is refused by an `AffectoryError`, or read, within ten seconds and a bounded memory. ``--only NUMBER``
repeats one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from pathlib import Path

import conftest
import numpy as np
from mutants import mutant

from classify.config import RunConfig
from classify.heads.trees import read_trees
from classify.inference.bundle import read_bundle, write_bundle
from classify.inference.cards import data_card_text, model_card_text
from classify.pages.leaderboard import leaderboards
from classify.pages.page import report_page
from classify.pages.tables import leaderboard_text, run_text
from classify.runs.folder import find_runs, read_run
from classify.runs.train import run
from classify.studies.sweep import read_sweep
from features_store import write_index
from features_store.errors import AffectoryError

CASE_SECONDS, MAX_GROWTH = 10, 300  # MiB
SWEEP = """task = "polarity"
store = "STORE"
blocks = ["alpha.pool"]
seed = 1
[[grid]]
head = ["linear", "svm"]
set.C = [0.1, 1.0]
[[grid]]
head = ["mlp"]
set.hidden = [[16], [8, 8]]
set.epochs = [2]
"""
STRANGE = (
    "",
    '"',
    "[",
    "]",
    "]]",
    "{",
    "}",
    "=",
    "-1",
    "1e999",
    "nan",
    "9" * 30,
    "9" * 5000,
    "true",
    "[[]]",
    '"\\u001b"',
    "é",
)
STRANGE += ("2020-01-01", "[" * 300, '"../../x"', "\n", "grid", "set.C = 1", "out = '/etc/x'", "0", ".", "limit = 1\n")


class Fuzz:
    """Honest files, and the readers that their mutants go through."""

    def __init__(self, store: Path, runs: Path, scratch: Path) -> None:
        self.store, self.scratch = store, scratch
        self.runs = shutil.copytree(runs, scratch / "runs")
        self.reports = {path: path.read_bytes() for path in sorted(self.runs.rglob("report.json"))}
        self.tables = {path: path.read_bytes() for path in sorted(self.runs.rglob("predictions.csv"))}
        self.bundles = [self._bundle(read_run(path.parent)) for path in self.reports]
        self.texts = [data for files in self.bundles for name, data in files.items() if "booster" in name]

    def _bundle(self, one) -> dict[str, bytes]:
        write_bundle(one, self.scratch / "good.zip", force=True)
        with zipfile.ZipFile(self.scratch / "good.zip") as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def case(self, number: int) -> str:
        """Try one mutation; return how it ended."""
        random = np.random.default_rng(number)
        tries = [self._report, self._head, self._sweep, self._table, *([self._trees] if self.texts else [])]
        try:
            tries[number % len(tries)](random, number // len(tries))
        except AffectoryError as error:
            said = str(error)
        else:
            return "read"
        assert "\x1b" not in said
        return "refused"

    def _report(self, random: np.random.Generator, number: int) -> None:
        path = list(self.reports)[number % len(self.reports)]
        path.write_bytes(mutant(json.loads(self.reports[path]), random))
        try:
            self._shown(path.parent)
        finally:
            path.write_bytes(self.reports[path])

    def _table(self, random: np.random.Generator, number: int) -> None:
        path = list(self.tables)[number % len(self.tables)]
        text = self.tables[path].decode()
        path.write_text(_edited(text, random), encoding="utf-8")
        try:
            self._shown(path.parent)
        finally:
            path.write_bytes(self.tables[path])

    @staticmethod
    def _shown(folder: Path) -> None:
        runs = find_runs([folder])
        pages = [report_page(runs), *(card(one) for one in runs for card in (model_card_text, data_card_text))]
        lines = [*map(leaderboard_text, leaderboards(runs)), *map(run_text, runs)]
        assert not any("<script>alert(1)" in text for text in pages)
        assert not any("\x1b" in text for text in (*pages, *lines))

    def _head(self, random: np.random.Generator, number: int) -> None:
        files = dict(self.bundles[number % len(self.bundles)])
        names = ["model/head.json", "task.json", "passports.json", "adjustment.json"]
        name = names[int(random.choice(4, p=[0.7, 0.1, 0.1, 0.1]))]
        files[name] = mutant(json.loads(files[name]), random)
        record = {
            n: {"sha256": hashlib.sha256(d).hexdigest(), "bytes": len(d)} for n, d in files.items() if "mani" not in n
        }
        files["manifest.json"] = json.dumps(
            {"format": "affectory-bundle", "format_version": 1, "files": record}
        ).encode()
        with zipfile.ZipFile(self.scratch / "bad.zip", "w") as archive:
            for member, data in files.items():
                archive.writestr(member, data)
        model = read_bundle(self.scratch / "bad.zip")
        assert np.isfinite(model.scores(np.zeros((2, model.head.n_features_in_), np.float32))).all()

    def _sweep(self, random: np.random.Generator, number: int) -> None:
        path = self.scratch / "sweep.toml"
        path.write_text(_edited(SWEEP, random).replace("STORE", str(self.store)), encoding="utf-8")
        read_sweep(path)

    def _trees(self, random: np.random.Generator, number: int) -> None:
        text = self.texts[number % len(self.texts)].decode()
        read_trees(_edited(text, random), n_features=12).predict(np.zeros((2, 12), np.float32))


def _edited(text: str, random: np.random.Generator) -> str:
    start, length = int(random.integers(len(text))), int(random.choice([0, 1, 2, 9]))
    return text[:start] + str(random.choice(STRANGE)) + text[start + length :]


def made(folder: Path) -> Fuzz:
    """Return a store and runs of every kind of task, small."""
    store, random = folder / "planted", np.random.default_rng(7)
    store.mkdir(parents=True)
    index, hidden = conftest.make_index(random)
    write_index(store / "index.h5", index)
    vectors = hidden @ random.normal(size=(3, 12)) + 0.4 * random.normal(size=(len(hidden), 12))
    conftest.write_block(store, index, "alpha.pool", vectors)
    for task, head, settings in (
        ("polarity", "mlp", {"epochs": 2, "hidden": [8]}),
        ("evokes", "gbm", {"n_rounds": 3}),
        ("affect", "svm", {}),
        ("valence", "gbm", {"n_rounds": 3}),
        ("polarity", "linear", {}),
    ):
        out = str(folder / "made" / task / head)
        run(RunConfig(str(store), task, head, ("alpha.pool",), settings=settings, resamples=20, out=out))
    (folder / "scratch").mkdir()
    return Fuzz(store, folder / "made", folder / "scratch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--only", type=int)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fuzz, ends, number = made(Path(folder)), {"refused": 0, "read": 0}, asked.start
        before, stop = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic() + asked.seconds
        while time.monotonic() < stop:
            number = number if asked.only is None else asked.only
            signal.alarm(CASE_SECONDS)
            try:
                ends[fuzz.case(number)] += 1
            except Exception:
                traceback.print_exc()
                sys.exit(f"mutation {number} ended in a traceback; repeat it with --only {number}")
            finally:
                signal.alarm(0)
            if asked.only is not None:
                break
            number += 1
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        print(
            f"{number - asked.start} mutations: {ends['refused']} refused, {ends['read']} read; memory grew {grown} MiB"
        )
        if grown > MAX_GROWTH:
            sys.exit(f"memory grew by more than {MAX_GROWTH} MiB")


if __name__ == "__main__":
    main()
