"""The page: one self-contained HTML file about some runs, readable without a network, on a phone, in the dark."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from classify.errors import RunError
from classify.evaluation.wording import interval_text, interval_words, metric_title, p_text
from classify.json_file import check_new, whole_file
from classify.pages.leaderboard import leaderboards
from classify.pages.pictures import Pictures
from classify.pages.task_section import task_section
from classify.runs.folder import Run

_TEMPLATES = Path(__file__).parent / "templates"
_CREDITS = {
    "emoji": "Emoji pictures: OpenMoji, the open-source emoji and icon project (openmoji.org), licence CC BY-SA 4.0."
}


def write_report_page(
    runs: Sequence[Run], path: Path, *, data: Path | None = None, empty: int = 0, force: bool = False
) -> None:
    """Write the page about *runs* to *path*, whole or not at all."""
    check_new(path, force=force)
    if data is not None and not data.is_dir():
        raise RunError(f"{data} is not a folder; --data takes the one that holds the pictures of the corpus")
    write_text(path, report_page(runs, data=data, empty=empty), force=force)


def write_text(path: Path, text: str, *, force: bool) -> None:
    """Write a page or a figure, whole or not at all."""
    with whole_file(path, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


def report_page(runs: Sequence[Run], *, data: Path | None = None, empty: int = 0) -> str:
    """Return the page about *runs* as HTML; everything that comes from a corpus is escaped.

    *empty* is the recall of a class without images in the table by class: 0, or 1 as some papers print it.
    """
    boards, spent = leaderboards(runs), [0]
    pictures = {corpus: Pictures.of_corpus(corpus, data, spent) for corpus in {board.corpus for board in boards}}
    tasks = Counter((board.corpus, board.task) for board in boards)
    sections = [
        task_section(
            board,
            anchor=f"board-{i}",
            repeated=tasks[board.corpus, board.task] > 1,
            pictures=pictures[board.corpus],
            empty=empty,
        )
        for i, board in enumerate(boards, start=1)
    ]
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    readers = {str((run.report.reader or {}).get("name", "")) for run in runs}
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            sections=sections,
            style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
            script=script,
            script_digest=digest,
            made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            corpora=sorted(pictures),
            n_tasks=len(tasks),
            n_runs=len(runs),
            credits=[text for name, text in _CREDITS.items() if name in readers | pictures.keys()],
            picture_note=_picture_note(pictures),
        )
    )


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": interval_text, "metric": metric_title, "reason": interval_words, "p": p_text}
    for name, form in {"plain": ".3f", "short": ".2f", "signed": "+.3f"}.items():
        environment.filters[name] = partial(_number, form=form)
    return environment


def _number(value: float | None, form: str) -> str:
    """Write a number with a proper minus sign; a dash for what is not one."""
    if value is None or math.isnan(value):
        return "–"
    return format(value, form).replace("-", "−")


def _picture_note(pictures: dict[str, Pictures]) -> str:
    """Say why some pictures are not shown; empty where all could be."""
    if importlib.util.find_spec("PIL") is None:
        return "Pictures are not shown, because Pillow is not installed where this page was made."
    lacking = sorted(corpus for corpus, found in pictures.items() if not found.there)
    if lacking:
        places = f"no folder with the pictures of {', '.join(lacking)} was found"
        return f"Pictures are not shown: {places}; `classify report --data FOLDER` tells where they are."
    if any(found.full for found in pictures.values()):
        return "Some pictures are left out, to keep this page under 5 MB."
    return ""
