"""Results as lines of text: leaderboards, pairs, sweeps, ablations, and the summary at the end of each command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from classify.console import columns, paragraph
from classify.evaluation.metrics import greater_is_better
from classify.evaluation.wording import distinct_metrics, interval_text, interval_words, metric_title, p_text
from classify.heads import ALL_HEADS, head_class, head_options
from classify.heads.options import Option, options_of
from classify.pages.leaderboard import (
    STANDINGS,
    Leaderboard,
    choice_words,
    clean_title,
    leaderboards,
    missing_intervals,
    standing_words,
)
from classify.pages.run_section import run_notes
from classify.runs.folder import Run, read_run
from classify.runs.record import plain
from classify.runs.report_json import UNDEFINED, shown_metrics

if TYPE_CHECKING:
    from classify.studies.sweep import GridPoint


def leaderboard_text(board: Leaderboard) -> str:
    """Lay out one leaderboard, the baselines as its last rows."""
    rows = [["run", *map(metric_title, board.shown), "verdict"]]
    for row in board.rows:
        rows.append([row.name + " !" * bool(row.warnings), *_cells(row.metrics, board.shown), STANDINGS[row.standing]])
        if row.crossing:
            rows.append([f"  {clean_title(row.crossing)}", *_cells(row.crossing["metrics"], board.shown), ""])
    for name, found in {"majority": board.baseline, **board.others}.items():
        rows.append([name, *_cells(found, board.shown), ""])
    chance = "chance: brackets hold 95% of guesses on these images, not an interval" if "chance" in board.others else ""
    no_verdict = next((row.reason for row in board.rows if row.reason and row.standing == "undefined"), "")
    remarks = [chance, choice_words(board), *missing_intervals(board), no_verdict]
    warnings = dict.fromkeys(text for row in board.rows for text in row.warnings)
    return paragraph(
        [
            f"{board.corpus} · {board.task} ({board.kind}) · {board.n_images} {board.part} images, split {board.split}",
            *columns(rows),
            *(f"  {text}" for text in remarks if text),
            *(f"  ! {text}" for text in warnings),
        ]
    )


def _cells(metrics: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [interval_text(metrics.get(name, UNDEFINED)) for name in names]


def pairs_text(board: Leaderboard, found: Sequence[Mapping[str, Any]]) -> str:
    """Lay out the pairs of a leaderboard."""
    if not found:
        return "  paired: there are no two heads to compare, or no image to compare them on; baselines are left out"
    rows = [["pair", f"difference in {metric_title(board.shown[0])}", "p (Holm)", "McNemar", "p", "better"]]
    for pair in found:
        test = pair["mcnemar"]
        rows.append(
            [
                f"{pair['first']} – {pair['second']}",
                _signed(pair["difference"]),
                p_text(pair["p_holm"]),
                f"{test['only_first']} : {test['only_second']}" if test else "–",
                p_text(test["p"] if test else None),
                pair["better"] or "not shown",
            ]
        )
    crossing = next((row.crossing for row in board.rows if row.crossing), None)
    note = f"Student's t of the difference (jackknife), Holm over all {len(found)} pairs, baselines left out"
    if any(pair["mcnemar"] for pair in found):
        note += "; McNemar counts the images that only one of the two gets right, its p is not corrected"
    lines = [f"  differences {clean_title(crossing)}"] if crossing else []
    return paragraph([*columns(rows), *lines, f"  {note}"])


def _signed(gain: Mapping[str, Any], *, mark: str = "", short: bool = False) -> str:
    """Write a difference with its interval, marked where that leaves out 0."""
    value, low, high = gain["value"], gain["low"], gain["high"]
    if value is None:
        return "–"
    if low is None or high is None:
        return f"{value:+.3f}"
    mark = mark if low > 0 or high < 0 else ""
    return f"{value:+.3f}{mark}" if short else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]{mark}"


def run_text(run: Run) -> str:
    """Sum up a run in a few lines: what was fitted, each metric beside the baseline, what to beware of."""
    report = run.report
    (board,) = leaderboards([run])
    (row,) = board.rows
    counts = ", ".join(f"{report.n_images(part)} {part}" for part in report.metrics)
    shown = distinct_metrics(row.metrics, report.classes)
    rows = [[board.part, report.head, "majority baseline"]]
    rows += [[metric_title(n), interval_text(row.metrics[n]), interval_text(board.baseline[n])] for n in shown]
    remarks = []
    if clean := row.crossing:
        for name in distinct_metrics(board.shown, report.classes):
            rows.append([f"{metric_title(name)} *", *(interval_text(clean[k][name]) for k in ("metrics", "majority"))])
        remarks.append(
            f"*: {clean_title(clean)} between the parts, on the other {clean['n_images']} {board.part} images"
        )
    if names := board.others.get("id-only", {}).get(board.shown[0]):
        remarks.append(
            f"file names alone reach {metric_title(board.shown[0])} {interval_text(names)} (id-only baseline)"
        )
    remarks += [standing_words(row, board), *(interval_words(row.metrics[name]) for name in shown)]
    remarks += run_notes(report, board.part)
    return paragraph(
        [
            f"{report.head} on {board.corpus} · {board.task} ({board.kind}): {counts} images, "
            f"{report.n_features} features from {', '.join(report.blocks)}",
            *columns(rows),
            *(f"  {text}" for text in dict.fromkeys(remarks) if text),
            *(f"  ! {text}" for text in report.warnings),
            f"wrote {run.folder} ({report.timings.get('fit', 0.0):.1f} s to fit)",
        ]
    )


def sweep_records(cells: Sequence[GridPoint]) -> list[dict[str, Any]]:
    """Return one record for each grid point: choices, folder, whether it is done, and its metrics if so.

    The score that ranks is of the validation part where there is one: a sweep chooses, and the test part is for
    afterwards.
    """
    records = []
    for cell in cells:
        record: dict[str, Any] = {
            "choices": dict(cell.choices),
            "task": cell.config.task,
            "head": cell.config.head,
            "folder": cell.config.folder.as_posix(),
            "digest": cell.digest,
            "done": cell.done,
            "problem": cell.problem,
        }
        if cell.done:
            report = read_run(cell.config.folder).report
            part = "validation" if "validation" in report.metrics else report.judged_part
            record |= {"part": part, "metric": report.primary_metric, "metrics": report.metrics[part]}
            record |= {"n_tried": report.n_tried, "crossing": report.crossing}
        records.append(record)
    return records


def sweep_text(cells: Sequence[GridPoint]) -> str:
    """Lay out a sweep: a table for each task, the best grid point first, those that are not done last."""
    records = sweep_records(cells)
    tasks = dict.fromkeys(record["task"] for record in records)
    return "\n\n".join(_sweep_table([record for record in records if record["task"] == task]) for task in tasks)


def _sweep_table(records: Sequence[dict[str, Any]]) -> str:
    done = [record for record in records if record["done"]]
    names = [n for n in dict.fromkeys(name for record in records for name in record["choices"]) if n != "task"]
    title = f"{records[0]['task']}: {len(done)} of {len(records)} runs done"
    if done:
        metric, sign = done[0]["metric"], -1 if greater_is_better(done[0]["metric"]) else 1
        done.sort(key=lambda record: sign * (record["metrics"][metric]["value"] or 0.0))
        title += f", by {metric_title(metric)} of the {done[0]['part']} part"
    rows = [[*(name.removeprefix("set.") for name in names), "score", "folder"]]
    for record in (*done, *(record for record in records if not record["done"])):
        chosen = [record["choices"].get(name, "") for name in names]
        texts = ["+".join(map(str, value)) if isinstance(value, list) else str(value) for value in chosen]
        score = _score(record) if record["done"] else "cannot be run" if record["problem"] else "to do"
        rows.append([*texts, score, record["problem"] or record["folder"]])
    lines = []
    if len(done) > 1:
        rest = "no value free of that choice was computed"
        if done[0]["part"] == "validation":
            rest = "only the test values of the runs are free of that choice"
        lines.append(f"  best of {len(done)} on the images that chose it; {rest}")
    crossings = [record["crossing"] for record in done if record["crossing"]]
    lines += [f"  ! the split parts {c['n_groups']:,} groups of {c['n_images']:,} images" for c in crossings]
    return paragraph([title, *columns(rows), *dict.fromkeys(lines)])


def _score(record: dict[str, Any]) -> str:
    """Write the score of a grid point, and what it is without images that the split separates from their group."""
    score = interval_text(record["metrics"][record["metric"]])
    clean = (record["crossing"] or {}).get("parts", {}).get(record["part"])
    return f"{score} ({clean_title(clean)}: {interval_text(clean['metrics'][record['metric']])})" if clean else score


def ablation_text(found: Mapping[str, Any]) -> str:
    """Lay out an ablation: one line for each subset, the best first, then what each block adds."""
    names = [n for n in shown_metrics(found["kind"], found["classes"]) if n in found["baseline"]]
    path, metric, blocks = found["path"], metric_title(found["metric"]), list(found["blocks"])
    table = [["blocks", *([path["option"]] if path else []), *map(metric_title, names)]]
    for subset in found["subsets"]:
        value = [f"{subset['chosen'][path['option']]:g}"] if path else []
        table.append([" + ".join(subset["blocks"]), *value, *_cells(subset["metrics"], names)])
    table.append(["majority", *([""] if path else []), *_cells(found["baseline"], names)])
    sums = [[f"better {metric} by", "alone", "on average", "on top of the others"]]
    for block, gains in found["gains"].items():
        keys = ("alone", "on_average", "on_top_of_the_others")
        sums.append([block, *(_signed(gains[key], mark="*") for key in keys)])
    lines = [
        f"{found['corpus']} · {found['task']} ({found['kind']}): {found['head']} on {found['n_images']} images, "
        f"{found['folds']}-fold cross-validation within the training and validation parts of {found['split']}",
        *columns(table),
        f"  best of {tried_words(found)} on the images that chose it; no value free of that choice was computed",
        *([f"  ! {found['crossing']['words']}"] if found["crossing"] else []),
        "",
        *columns(sums),
    ]
    if found["pairs"] and len(blocks) > 2:  # row: the block that is there; column: the block that is added to it
        gains = {(pair["to"], pair["added"]): _signed(pair, mark="*", short=True) for pair in found["pairs"]}
        grid = [[f"to {one}", *(gains.get((one, other), "·") for other in blocks)] for one in blocks]
        lines += ["", *columns([[f"{metric}, adding", *blocks], *grid])]
    n_marks = 3 * len(found["gains"]) + len(found["pairs"])
    blind = (
        "the answers of all blocks dealt to the images at random" if found["greater_is_better"] else "the mean label"
    )
    marks = f"*: the 95% interval leaves out 0, of {n_marks} intervals, not corrected for their number"
    return paragraph([*lines, "", f"  alone: over {blind}; {marks}"])


def tried_words(found: Mapping[str, Any]) -> str:
    """Say of how many results an ablation names the best."""
    n, path = len(found["subsets"]), found["path"]
    if not path:
        return str(n)
    return f"{n * len(path['values'])} ({n} sets of blocks x {len(path['values'])} values of {path['option']})"


def audit_text(found: Mapping[str, Any]) -> str:
    """Sum up an audit in a few lines."""
    lines = []
    for where, across in found["duplicates"]["across"].items():
        part, _, other = where.partition(" in ")
        first = across["pairs"][0] if across["pairs"] else None
        example = f", first {first['id']} and {first['other']} ({first['cosine']:.3f})" if first else ""
        least = across.get("threshold", 0)
        from_ = f"cosine from {least:.4g}" if least <= 1 else "no cosine counts"
        from_ = f" ({from_}: the blocks have few columns)" if least > found["duplicates"]["threshold"] else ""
        lines.append(f"{across['n_images']} {part} images have a near-duplicate in {other}{from_}{example}")
    doubted = found["label_errors"]
    if doubted.get("judge_knows") is False:
        judge = doubted["judge"]
        lines.append(f"no label is doubted: the judge ({judge}) is not better than its answers dealt at random")
        return paragraph(lines)
    expected = doubted.get("n_expected")
    none_wrong = "" if expected is None else f"; where none is wrong, about {expected} would be listed"
    judge = f"{metric_title(doubted['judge_metric'])} {doubted['judge_value']:.3f}"
    lines.append(
        f"{doubted['n_images']} of {doubted['n_judged']} images have a label that the judge ({judge}) disagrees with, "
        f"by {doubted['method']}{none_wrong}"
    )
    for one in doubted["images"][:5]:
        about = f"{one['output']}: " if "output" in one else ""
        lines.append(f"  {one['id']} ({one['part']}): {about}{one['given']}, rather {one['suggested']}")
    return paragraph(lines)


def curve_text(run: Run, learned: Mapping[str, Any]) -> str:
    """Lay out a learning curve as one line."""
    points = ", ".join(f"{point['n']}: {point['value']:.3f}" for point in learned["points"])
    title = f"{run.folder}: {metric_title(learned['metric'])} by training images {points}"
    return paragraph([title, *(f"  ! {text}" for text in learned.get("warnings", ()))])


def seeds_text(run: Run, found: Mapping[str, Any]) -> str:
    """Lay out the spread over seeds: a line for each metric."""
    lines = [f"{run.folder}: {len(found['seeds'])} seeds on the {found['part']} part"]
    for name, one in found["metrics"].items():
        if one["lowest"] is None:
            continue
        spread = f"{one['lowest']:.3f} to {one['highest']:.3f}"
        moved = "" if one["moved"] is None else f"; on vectors moved by {found['moved_by']:g} {one['moved']:.3f}"
        lines.append(f"  {metric_title(name)} {interval_text(one)}; over the seeds {spread}{moved}")
        if one["sensitive"]:
            lines.append("  ! the last digits of the vectors move it by more than half of its interval: another")
            lines.append("    processor may give another value")
    return paragraph(lines)


def head_records() -> list[dict[str, Any]]:
    """Return the table of heads as plain values, with the default of every option by kind of task."""
    return [
        {
            "name": head.name,
            "description": head.description,
            "kinds": list(head.kinds),
            "options": {kind: plain(head_options(head.name, kind)) for kind in head.kinds},
        }
        for head in ALL_HEADS.values()
    ]


def head_list() -> str:
    """Lay out the table of heads, a line for each; no head is imported for it."""
    lines = [f"{head.name:<8} {head.description} ({', '.join(head.kinds)})" for head in ALL_HEADS.values()]
    return "\n".join([*lines, "", "`classify heads HEAD` lists the options of one."])


def head_card(name: str) -> str:
    """Lay out one head: what it is, and its options with defaults as ``--set`` takes them, meaning and range."""
    kinds = ALL_HEADS[name].kinds if name in ALL_HEADS else ("single",)
    head_class(name, kinds[0])  # an unknown name is answered with the valid ones
    options: dict[str, Any] = {}
    declared: dict[str, Option] = {}
    for kind in reversed(kinds):
        options = {**head_options(name, kind), **options}
        declared = {**declared, **options_of(head_class(name, kind))}
    lines = [f"{name}: {ALL_HEADS[name].description} ({', '.join(kinds)})"]
    for option, value in options.items():
        if option != "random_state":  # it is the seed of the run
            default = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
            lines += [f"  {option}={default}", f"      {declared[option].help}", f"      {declared[option].takes}"]
    return "\n".join(lines)
