"""The figures that `classify figure` writes: curves, confusions, planes, histograms, explanations of several runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.config import user_path
from classify.data.kinds import kind_of
from classify.errors import RunError
from classify.figures.charts import confusion_chart, plane_chart
from classify.figures.panels import curves_figure, histogram_figure, pictures_figure, side_by_side
from classify.figures.svg import PALETTE, standalone
from classify.json_file import SchemaError, items, parse_json, read_regular, record
from classify.pages.leaderboard import distinct_names
from classify.pages.pictures import OVERLAY_SIDE, Pictures
from classify.runs.findings_json import EXPLANATIONS, read_explanations
from classify.runs.folder import Run, find_runs
from classify.runs.report_json import EPOCH
from features_store import open_store
from features_store.errors import unknown_name

_NETWORK = "network.json"  # of a network that `extract fit` trained, with its history
_WITH_HISTORY = record({"history": items(EPOCH)})
_EACH_CLASS = 2  # pictures of each class that explanations show


def figure(kind: str, places: Sequence[Path], *, task: str | None = None, member: str | None = None) -> str:
    """Draw one figure of several runs (of a histogram: of stores), able to stand alone.

    *task* is a task of the stores, *member* the corpus of a union that is drawn against all of it.
    """
    if kind not in KINDS:
        raise RunError(unknown_name("kind of figure", kind, KINDS))
    if kind != "histogram" and (task or member):
        raise RunError(f"--task and --member choose what a histogram shows; {kind} are of runs")
    if kind == "histogram":
        return standalone(_histogram(places, task, member))
    return standalone(_OF_RUNS[kind](places))


def _named(places: Sequence[Path]) -> dict[str, Run]:
    runs = find_runs(places)
    return dict(zip(distinct_names(runs), runs, strict=True))


def _curves(places: Sequence[Path]) -> str:
    """Curves of runs, and of networks that `extract fit` trained."""
    networks = [place for place in places if (place / _NETWORK).is_file()]
    paths = list(dict.fromkeys(place.resolve().parts for place in networks))
    depth = next((d for d in range(1, 99) if len({path[-d:] for path in paths}) == len(paths)), 99)
    histories: dict[str, Sequence[Mapping[str, Any]]] = {
        "/".join(place.resolve().parts[-depth:]): _network_history(place) for place in networks
    }
    others = [place for place in places if place not in networks]
    for name, run in _named(others).items() if others else ():
        histories[name if name not in histories else f"{name} ({run.report.head})"] = run.report.history
    drawn = {name: rows for name, rows in histories.items() if len(rows) > 1}
    if not drawn:
        raise RunError(
            f"{', '.join(histories)}: no training of more than one epoch is recorded, so there is no curve; give runs "
            "of a network, or the folder of a network that `extract fit` trained"
        )
    if len(drawn) > len(PALETTE):
        raise RunError(f"{len(drawn)} runs have curves, and one figure tells {len(PALETTE)} apart; give fewer")
    return curves_figure(drawn)


def _network_history(folder: Path) -> list[dict[str, Any]]:
    values = parse_json(read_regular(folder / _NETWORK), folder / _NETWORK)
    try:
        return list(_WITH_HISTORY(values, _NETWORK)["history"])
    except SchemaError as error:
        raise RunError(f"{folder} holds no history of epochs: {error}; was it written by `extract fit`?") from error


def _confusion(places: Sequence[Path]) -> str:
    runs = {name: run for name, run in _named(places).items() if kind_of(run.task).exclusive}
    if not runs:
        raise RunError("none of the runs has one label an image, so there is no confusion; see --kind plane")
    tables = {name: run.report.confusion.get(run.report.judged_part) for name, run in runs.items()}
    if lacking := [name for name, table in tables.items() if table is None]:
        raise RunError(f"the report of {runs[lacking[0]].folder} holds no confusion; make the run again")
    charts = [confusion_chart(table, runs[name].task.classes) for name, table in tables.items() if table is not None]
    return side_by_side(charts, names=list(runs), title="Confusion")


def _plane(places: Sequence[Path]) -> str:
    runs = {n: r for n, r in _named(places).items() if not kind_of(r.task).has_classes and len(r.task.classes) == 2}
    if not runs:
        raise RunError("none of the runs predicts two values, like valence and arousal, so there is no plane")
    charts = []
    for run in runs.values():
        part, (x, y) = run.part(run.report.judged_part), run.task.classes
        truth, predicted = (np.asarray(values, dtype=np.float64) for values in (part.y_true, part.y_score))
        charts.append(plane_chart(truth, predicted, names=(x, y), span=run.task.range))
    return side_by_side(charts, names=list(runs), title="Plane")


def _histogram(places: Sequence[Path], task: str | None, member: str | None) -> str:
    """Distributions of the outputs of stores; of a union also those of one member."""
    columns: dict[str, dict[str, NDArray[np.float64]]] = {}
    span: tuple[float, float] | None = None
    for place in places:
        store = open_store(user_path(place))
        values = [name for name, labels in store.labels.items() if not kind_of(labels.task).has_classes]
        name = task or next(iter(values), "")
        if name not in values:
            raise RunError(f"{place}: {unknown_name('task with values', name, values)}")
        labels, corpus = store.labels[name], str(store.corpus.get("name") or place.name)
        chosen = {f"{corpus} ({place})" if f"{corpus}" in next(iter(columns.values()), {}) else corpus: labels.known}
        if member:
            inside = np.char.startswith(store.ids, f"{member}/") & labels.known
            if not inside.any():
                raise RunError(f"{place} has no labelled image of a member {member!r}; ids of a union begin MEMBER/")
            chosen[f"{member} of {corpus}"] = inside
        ends = labels.task.range or (float(np.nanmin(labels.values)), float(np.nanmax(labels.values)))
        span = ends if span is None else (min(span[0], ends[0]), max(span[1], ends[1]))
        table = np.asarray(labels.values, dtype=np.float64).reshape(len(store.ids), -1)
        for title, rows in chosen.items():
            for k, output in enumerate(labels.task.classes):
                columns.setdefault(output, {})[title] = table[rows, k]
    if len(next(iter(columns.values()))) > len(PALETTE):
        raise RunError(f"one figure tells {len(PALETTE)} corpora apart; give fewer stores")
    return histogram_figure(columns, span or (0.0, 1.0))


def _explanations(places: Sequence[Path]) -> str:
    """Explained pictures by their true class, a column for each run."""
    runs = _named(places)
    found = {name: read_explanations(run.folder / EXPLANATIONS / "explanations.json") for name, run in runs.items()}
    if lacking := [str(runs[name].folder) for name, one in found.items() if one is None]:
        raise RunError(f"{lacking[0]} has no explanations; write some: classify explain {lacking[0]} --each-class 2")
    entries = {name: {str(one["id"]): one for one in (of or {})["images"]} for name, of in found.items()}
    by_class: dict[str, Counter[str]] = {}
    for images in entries.values():
        for image, one in images.items():
            truth = ", ".join(one.get("truth") or ()) or "unlabelled"
            by_class.setdefault(truth, Counter())[image] += 1
    known = [name for run in runs.values() for name in run.task.classes]
    order = sorted(by_class, key=lambda name: (known.index(name) if name in known else len(known), name))
    rows = {}
    for name in order:
        chosen = sorted(by_class[name], key=lambda image: -by_class[name][image])[:_EACH_CLASS]  # seen by most runs
        rows[name] = [[_overlay(runs[run], entries[run].get(image)) for run in runs] for image in chosen]
    return pictures_figure(rows, list(runs))


def _overlay(run: Run, entry: Mapping[str, Any] | None) -> tuple[str, str]:
    if entry is None:
        return "", ""
    made = Pictures(run.folder).of_file(run.folder / EXPLANATIONS / Path(entry["file"]).name, side=OVERLAY_SIDE)
    return (made.uri if made else ""), ", ".join(map(str, entry.get("predicted") or ()))


_OF_RUNS: dict[str, Callable[[Sequence[Path]], str]] = {
    "curves": _curves,
    "confusion": _confusion,
    "plane": _plane,
    "explanations": _explanations,
}
KINDS = ("curves", "confusion", "plane", "histogram", "explanations")
