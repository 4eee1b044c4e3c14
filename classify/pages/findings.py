"""What lies in and beside a run's folder that the page shows too: audit, ablation, learning curve, explanations.

::

    runs/CORPUS/TASK/audit.json          classify audit: near-duplicates, doubtful labels
    runs/CORPUS/TASK/ablation*.json      classify ablate: the metric by subset of blocks
    RUN/curve.json                       classify curve: the metric by number of training images
    RUN/explanations/*.png               classify explain: overlays, in the order of their names
    RUN/explanations/explanations.json   optional: {"images": [{"file", "id", "truth", "predicted", "method", "blocks":
                                         {BLOCK: share}, "concepts": [...]}, ...], "deletion": {"hottest", "random",
                                         "n_images"}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from classify.errors import RunError
from classify.pages.pictures import Pictures
from classify.runs.findings_json import read_ablation, read_audit, read_curve, read_explanations
from classify.runs.folder import Run
from classify.studies.audit import AUDIT
from classify.studies.learning_curve import CURVE

__all__ = ["EXPLANATIONS", "ablations_of", "audit_of", "curve_points", "explanations_of"]

EXPLANATIONS = "explanations"
MAX_OVERLAYS = 12  # of a run
_SIDE = 264  # pixels of an overlay's longer side


def audit_of(runs: Sequence[Run]) -> Mapping[str, Any] | None:
    """Return the audit of the task that some runs share; None where there is none, or it looked at other images."""
    for folder in dict.fromkeys(run.folder.parent for run in runs):
        found = read_audit(folder / AUDIT)
        if found and found["part_digests"] == runs[0].report.part_digests:
            return found
    return None


def ablations_of(runs: Sequence[Run]) -> list[Mapping[str, Any]]:
    """Return the ablations of the task that some runs share."""
    report = runs[0].report
    found: list[Mapping[str, Any]] = []
    for folder in dict.fromkeys(run.folder.parent for run in runs):
        for path in sorted(folder.glob("ablation*.json")):
            values = read_ablation(path)
            if values and values["task"] == report.task:
                found.append(values)
    return found


def curve_points(run: Run) -> Mapping[str, Any] | None:
    """Return the learning curve of a run; None where there is none."""
    return read_curve(run.folder / CURVE)


def explanations_of(run: Run, pictures: Pictures) -> dict[str, Any] | None:
    """Return the overlays of a run as thumbnails with what is said of them; None where there are none."""
    folder = run.folder / EXPLANATIONS
    if folder.is_symlink():
        message = f"{folder} is a symbolic link; the explanations of a run lie in it"
        raise RunError(message)
    files = sorted(path for path in folder.glob("*.png") if not path.is_symlink())[:MAX_OVERLAYS]
    told = read_explanations(folder / "explanations.json") or {"images": [], "deletion": None}
    by_file = {entry["file"]: entry for entry in told["images"]}
    items = []
    for path in files:
        entry = by_file.get(path.name, {})
        items.append(
            {
                "picture": pictures.of_file(path, side=_SIDE),
                "id": entry.get("id") or path.stem,
                "method": entry.get("method", ""),
                "truth": ", ".join(entry.get("truth", ())),
                "predicted": ", ".join(entry.get("predicted", ())),
                "blocks": sorted((entry.get("blocks") or {}).items(), key=lambda one: -one[1]),
                "concepts": entry.get("concepts", [])[:5],
            }
        )
    return {"items": items, "deletion": told["deletion"]} if items else None
