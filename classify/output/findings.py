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

from classify.audit import AUDIT
from classify.json_file import read_json
from classify.learning import CURVE
from classify.output.thumbnails import Pictures
from classify.runs import Run

__all__ = ["EXPLANATIONS", "ablations_of", "audit_of", "curve_points", "explanations_of"]

EXPLANATIONS = "explanations"
MAX_OVERLAYS = 12  # of a run
_SIDE = 264  # pixels of an overlay's longer side


def audit_of(runs: Sequence[Run]) -> Mapping[str, Any] | None:
    """Return the audit of the task that some runs share; None where there is none, or it looked at other images."""
    for folder in dict.fromkeys(run.folder.parent for run in runs):
        found = read_json(folder / AUDIT)
        if found and found.get("part_digests") == runs[0].report.get("part_digests"):
            return found
    return None


def ablations_of(runs: Sequence[Run]) -> list[Mapping[str, Any]]:
    """Return the ablations of the task that some runs share."""
    report = runs[0].report
    found: list[Mapping[str, Any]] = []
    for folder in dict.fromkeys(run.folder.parent for run in runs):
        for path in sorted(folder.glob("ablation*.json")):
            values = read_json(path) or {}
            if values.get("subsets") and values.get("task") == report["task"]:
                found.append(values)
    return found


def curve_points(run: Run) -> Mapping[str, Any] | None:
    """Return the learning curve of a run; None where there is none."""
    return read_json(run.folder / CURVE)


def explanations_of(run: Run, pictures: Pictures) -> dict[str, Any] | None:
    """Return the overlays of a run as thumbnails with what is said of them; None where there are none.

    Parameters
    ----------
    run : Run
    pictures : Pictures
        Makes the thumbnails, and counts their bytes.
    """
    folder = run.folder / EXPLANATIONS
    files = sorted(folder.glob("*.png"))[:MAX_OVERLAYS]
    told = read_json(folder / "explanations.json") or {}
    entries = [one for one in told.get("images", []) if isinstance(one, dict)]
    by_file = {str(one.get("file", "")): one for one in entries}
    items = []
    for path in files:
        entry = by_file.get(path.name, {})
        shares = entry.get("blocks") if isinstance(entry.get("blocks"), dict) else {}
        items.append(
            {
                "picture": pictures.of_file(path, side=_SIDE),
                "id": str(entry.get("id", path.stem)),
                "method": str(entry.get("method", "")),
                "truth": _words(entry.get("truth")),
                "predicted": _words(entry.get("predicted")),
                "blocks": sorted(((str(n), float(s)) for n, s in (shares or {}).items()), key=lambda one: -one[1]),
                "concepts": [str(one) for one in entry.get("concepts", [])][:5],
            }
        )
    deletion = told.get("deletion") if isinstance(told.get("deletion"), dict) else None
    return {"items": items, "deletion": deletion} if items else None


def _words(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
