"""In what a run differs from the experiment of a paper, and by which command each difference can be changed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from classify.config import load_config
from classify.preset import Preset
from classify.runs.folder import Run
from classify.studies.preparation import Preparation
from features_store import Store
from features_store.passport import weights as passport_weights


@dataclass(frozen=True)
class Difference:
    """A value of ours and the one of the paper (or of its preset); *change* is the command that changes ours, or ""."""

    what: str
    ours: str
    theirs: str
    change: str = ""
    whose: str = "the paper's"

    def __str__(self) -> str:
        return f"{self.what}: {self.ours}, {self.whose}: {self.theirs}" if self.theirs else f"{self.what}: {self.ours}"


def _compared(what: str, ours: Any, theirs: Any, change: str = "", whose: str = "the paper's") -> list[Difference]:
    return [] if ours == theirs else [Difference(what, str(ours), str(theirs), change, whose)]


def differences(preset: Preset, run: Run, store: Store) -> list[Difference]:
    """List in what a run differs from the paper's experiment.

    Compared are the corpus and the options of its reader, the images of each part, the blocks with their widths, taps,
    views and precision, the weights, every field of a passport that the preset states, what a fitted network was
    fitted on, and the settings.
    """
    report, paper = run.report, preset.paper
    plan = Preparation(preset.system, stores={preset.corpus: "features/NEW"})
    reader, done = report.reader or {}, run.config
    extract = plan.change(preset, preset.run["blocks"])
    found = _compared("corpus", reader.get("name"), preset.corpus, extract)
    for name, value in paper.get("options", {}).items():
        ours = (reader.get("options") or {}).get(name)
        found += _compared(f"option {name} of the corpus", ours, value, extract)
    counts = {part: report.n_images(part) for part in ("train", "validation", "test")}
    counts["development"] = counts["train"] + counts["validation"]
    for part, n in paper.get("images", {}).items():
        found += _compared(f"split, {part} images", f"{counts[part]:,}", f"{n:,}")
    found += _compared("blocks", ", ".join(report.blocks), ", ".join(preset.widths), extract)
    for name in report.blocks:
        if name in preset.widths:
            found += _block_differences(name, preset, store, done.views, plan)
    again = f"classify run {shlex.quote(done.store)} --preset {preset.name} --force"
    if report.format_version < 2:
        found.append(Difference("vectors", "not recorded by a report of version 0.1", "", again))
    return found + _settings(preset, done, again)


def _block_differences(name: str, preset: Preset, store: Store, trained_on: str, plan: Preparation) -> list[Difference]:
    """Compare how a block was made with what the preset and its name say; *trained_on* are the run's views."""
    passport, paper = store.block(name).passport, preset.paper
    stated = dict(paper.get("passports", {}).get(name, {}))
    views = passport.get("views") if trained_on != "canonical" else None
    change, fitted = plan.change(preset, [name]), str(paper.get("weights", {}).get(name, "")).startswith("fit:")
    compared = {
        "width": (list(store.block(name).item_shape), list(preset.widths[name])),
        "encoder": (passport.get("encoder"), stated.pop("encoder", name.rpartition(".")[0])),
        "tap": (passport.get("tap"), stated.pop("tap", name.rpartition(".")[2])),
        "views": (
            (views["n"], stated.pop("views", 1))
            if isinstance(views, Mapping) and "policy" not in paper
            else (views["policy"] if isinstance(views, Mapping) else "none", paper.get("policy", "none"))
        ),
        "precision": (passport.get("autocast") or "float32", stated.pop("precision", "float32")),
    }
    found = []
    for what, pair in compared.items():
        found += _compared(f"{what} of {name}", *pair, change)
    for field, value in stated.items():
        whose = "the preset's" if field.startswith("weights.recipe.") else "the paper's"
        found += _compared(f"{field} of {name}", _field(passport, field), value, change, whose)
    if fitted:
        digest = _field(passport, "weights.fitted_on.index_digest")
        found += _compared(f"images that {name} was fitted on", digest, store.index_digest, change, "the store's")
        found += _compared(
            f"images of each part that {name} was fitted on",
            _field(passport, "weights.fitted_on.limit"),
            "absent",
            change,
        )
    source, published = passport_weights(passport).get("source", "unknown"), paper.get("weights", {}).get(name)
    if published is not None and source != published and not {"weights.sha256", "weights.source"} & stated.keys():
        found.append(Difference(f"weights of {name}", source, f"{published}; the paper's weights are not identified"))
    return found


def _field(passport: Mapping[str, Any], path: str) -> Any:
    """Return a field of a passport by its dotted path; "absent" where there is none."""
    value: Any = passport
    for name in path.split("."):
        value = value.get(name, "absent") if isinstance(value, Mapping) else "absent"
    return value


def _settings(preset: Preset, done: Any, again: str) -> list[Difference]:
    """Compare the configuration of a run with the preset's."""
    published = load_config(None, {"store": done.store, "preset": preset.name})
    quick = f"{done.limit} images of each part (--quick)"
    found = [Difference("only", quick, "", again)] if done.limit else []
    for name in ("task", "split", "head", "blocks", "refit", "merge", "calibration", "on_failed", "views"):
        found += _compared(name, getattr(done, name), getattr(published, name), again, "the preset's")
    for name in sorted(set(done.settings) | set(published.settings)):
        ours, theirs = (dict(one.settings).get(name, "not set") for one in (done, published))
        found += _compared(name, ours, theirs, again, "the preset's")
    return found
