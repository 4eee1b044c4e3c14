"""What the experiments of a system need before they can run, as commands: networks fitted, vectors extracted."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from classify.config import user_path
from classify.errors import ConfigError, RunError
from classify.preset import Preset, systems
from features_store import open_store
from features_store.console import child_program
from features_store.errors import unknown_name
from features_store.schema import Status

Command = tuple[str, ...]
N_VIEWS, QUICK_IMAGES, QUICK_VIEWS = 8, 240, 2
_FIT = "fit:"


@dataclass(frozen=True)
class Preparation:
    """How the experiments of a system are prepared."""

    system: str  # its experiments on one corpus share a store, so one policy of views
    data: Mapping[str, Command] = field(default_factory=dict)  # values of ``--data``, by corpus
    is_quick: bool = False  # a few images and epochs, in places of their own
    options: Command = ()  # further options of ``extract run``
    stores: Mapping[str, str] = field(default_factory=dict)  # places by corpus, where not ``features/CORPUS``

    def store(self, corpus: str) -> Path:
        """Return the folder of a corpus' vectors."""
        given = self.stores.get(corpus)
        return user_path(given) if given else Path("features", corpus + self._ending)

    def network(self, preset: Preset, block: str) -> Path:
        """Return the folder of a network that is fitted for a block."""
        return Path("networks", f"{block.rpartition('.')[0]}-{preset.corpus}{self._ending}")

    @property
    def _ending(self) -> str:
        return "-quick" if self.is_quick else ""

    def missing(self, preset: Preset, blocks: Iterable[str] | None = None, corpus: str = "") -> list[Command]:
        """Return the commands that are still needed, in order; *corpus* is another one than the experiment's own."""
        where = corpus or preset.corpus
        lacking = [name for name in blocks or preset.run["blocks"] if not self._whole(where, name)]
        if imported := [name for name in lacking if name in preset.paper.get("imported", ())]:
            raise ConfigError(
                f"{', '.join(imported)} cannot be extracted here; bring in the vectors of their authors: "
                f"{shlex.join(self.import_command(where, imported[0]))}"
            )
        fits = [
            self.fit_command(preset, name)
            for name in lacking
            if self._is_fitted(preset, name) and not (self.network(preset, name) / "network.json").is_file()
        ]
        return [*fits, *([self.extract_command(preset, lacking, where)] if lacking else [])]

    def fit_command(self, preset: Preset, block: str) -> Command:
        """Return the command that fits the network behind a block: the preset's line, with places."""
        words = [*shlex.split(preset.paper["fit"]), *self._data(preset.corpus)]
        words += ["--set", "epochs=1", "--limit", str(QUICK_IMAGES)] if self.is_quick else []
        return (*words, "--out", str(self.network(preset, block)))

    def extract_command(self, preset: Preset, blocks: Iterable[str], corpus: str = "") -> Command:
        """Return the command that extracts blocks."""
        where = corpus or preset.corpus
        names = dict.fromkeys(self._encoder(preset, block) for block in blocks)
        words = ["extract", "run", where, *self._data(where), *(_options(preset) if where == preset.corpus else ())]
        words += ["--encoders", ",".join(names)]
        policy = self.policy(where)
        if policy:
            words += ["--policy", policy, "--views", str(QUICK_VIEWS if self.is_quick else N_VIEWS)]
        words += ["--limit", str(QUICK_IMAGES), "--spread"] if self.is_quick else []
        return (*words, *self.options, "--store", str(self.store(where)))

    def explain_command(self, preset: Preset, run: Path) -> Command:
        """Return the command that explains a run as the paper does; nothing where it does not, or without a folder."""
        n = preset.paper.get("explained")
        folder = next((place for place in self.data.get(preset.corpus, ()) if user_path(place).is_dir()), None)
        if n is None or folder is None:
            return ()
        return ("classify", "explain", str(run), "--each-class", str(n), "--data", folder)

    def import_command(self, corpus: str, block: str) -> Command:
        """Return the form of the command that brings in vectors of others."""
        store = self.store(corpus)
        names = ("--ids", "ids.txt", "--name", block)
        return ("features-store", "import", str(store), "VECTORS.npy", *names, "-o", str(store / f"{block}.h5"))

    def change(self, preset: Preset, blocks: Iterable[str]) -> str:
        """Return the line that makes blocks as the experiment has them."""
        names, imported = list(blocks), preset.paper.get("imported", ())
        lines = [shlex.join(self.fit_command(preset, name)) for name in names if self._is_fitted(preset, name)]
        made = [name for name in names if name not in imported]
        lines += [shlex.join(self.extract_command(preset, made))] if made else []
        lines += [shlex.join(self.import_command(preset.corpus, name)) for name in names if name in imported]
        return "; ".join(lines)

    def policy(self, corpus: str) -> str | None:
        """Return how the images of a corpus are distorted for the experiments that train on it."""
        found = (one.paper.get("policy") for one in systems()[self.system] if one.corpus == corpus)
        return next((name for name in found if name), None)

    def _data(self, corpus: str) -> Command:
        return tuple(word for place in self.data.get(corpus, ("PATH",)) for word in ("--data", place))

    def _encoder(self, preset: Preset, block: str) -> str:
        if self._is_fitted(preset, block):
            return f"{_FIT}{self.network(preset, block)}"
        stated = preset.paper.get("passports", {}).get(block, {})
        return str(stated.get("encoder", block.rpartition(".")[0]))

    def _is_fitted(self, preset: Preset, block: str) -> bool:
        return str(preset.paper.get("weights", {}).get(block, "")).startswith(_FIT)

    def _whole(self, corpus: str, block: str) -> bool:
        """Tell whether a block lies in the store with every row that it is to have."""
        path = self.store(corpus)
        if not path.is_dir() or not any(path.glob("*.h5")):
            return False
        found = open_store(path).blocks.get(block)
        return found is not None and (self.is_quick or Status.PENDING not in found.status)


def _options(preset: Preset) -> Command:
    options = preset.paper.get("options", {}).items()
    return tuple(word for name, value in options for word in ("--option", f"{name}={value}"))


def corpora_of(system: str) -> list[str]:
    """Return the corpora of a system's experiments, and those that their heads are tested on."""
    members = systems()[system]
    crossed = [corpus for one in members for corpus in one.paper.get("crossed", {}).values()]
    return list(dict.fromkeys([one.corpus for one in members] + crossed))


def place_data(system: str, given: Sequence[str]) -> dict[str, Command]:
    """Sort values of ``--data`` by corpus: ``CORPUS=PATH``, or ``PATH`` alone for the first of a system.

    What a system of one corpus is given under another name belongs to its members, as of ``extract run``.
    """
    corpora = corpora_of(system)
    found: dict[str, Command] = {}
    for text in given:
        name, separator, place = text.partition("=")
        known = bool(separator) and name in corpora
        if separator and not known and len({one.corpus for one in systems()[system]}) > 1:
            raise ConfigError(f"--data {text}: {unknown_name(f'corpus of {system}', name, corpora)}")
        corpus = name if known else corpora[0]
        found[corpus] = (*found.get(corpus, ()), place if known else text)
    return found


def run_command(command: Command, notify: Callable[[str], None]) -> None:
    """Print a command and run it as a child process; what it reports goes to the error stream."""
    notify(f"$ {shlex.join(command)}")
    done = subprocess.run(child_program(*command), stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        notify(line)
    if done.returncode:
        raise RunError(f"`{shlex.join(command)}` ended with exit code {done.returncode}; it says why above")
