"""Pages that are written from the code: ``python -m tests.pages`` writes them, `tests/test_docs.py` compares them."""

from __future__ import annotations

import ast
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ROOMS, END_OF_ROOMS = "## Rooms\n", "## Adding things\n"
ENCODERS_HEAD = """# Encoders

Written from the table of encoders by `python -m tests.pages`; `extract encoders` prints the same. `--encoders` takes a
comma-separated list of these names, of `timm:NAME` and `open_clip:ARCH/TAG` for any model of those libraries,
of `ENCODER@MODULE:POOLING` for any other layer (pooling is `mean`, `max`, `cls` or `map`), of `ENCODER~SIZE` for a
network of timm over images squashed to squares of another size (`--size` says so for all), and of `fit:FOLDER` for a
network that [`extract fit`](networks.md) trained. `--profile` takes a named set. Licences of the weights are those of
their authors, who may allow research only: look before you publish or sell.

| encoder | blocks, values per image | what it is | weights |
|---|---|---|---|
"""
CORPORA_HEAD = """# Corpora

Written from the table of corpora by `python -m tests.pages`; `extract corpora` prints the same. The name of a corpus is
the first argument of `extract run` and `extract check`; `--data` says where it is, `--option KEY=VALUE` changes how it
is read. `union:A,B` joins several, with `--data A=PATH --data B=PATH`. From Python:

```python
import extract

dataset = extract.read_corpus("oasis", "data/OASIS", seed=1)  # options are keywords
dataset.index.labels["valence_arousal"].values  # (900, 2) float32
dataset.index.splits["default"].values  # (900,): 0 train, 1 validation, 2 test
dataset.files.read(0)  # the bytes of the first image
dataset.notes  # what was left out, and why
```
"""
FIDELITY_HEAD = """# Five papers, line by line

Written from the statements beside the presets (`classify/presets/*.toml`) by `python -m tests.pages`; `classify
reproduce SYSTEM` prints those that are not done as the paper says, with their reasons, and what a run of yours differs
in besides. *Agrees*: done as said, or available by the command named. *Assumed*: the paper leaves it open or
contradicts itself, and this was taken. *Differs*: done otherwise, for the reason given; where no experiments are named
it is true of all of that paper."""
BENCHMARKS_HEAD = """# Benchmarks

Written from `tests/bench/coverage.jsonl` and `tests/bench/results.csv` by `python -m tests.pages`: a number without its
command cannot enter.

# What the intervals and verdicts are worth

Simulated on worlds of known truth (`tests/bench/worlds.py`): heads of fixed quality on images without end, alone or
five to a group, half of every variance shared within a group. 1,000 repetitions a cell up to 300 images, 400 at
2,000; 400 resamples. The command resumes where it was stopped, cell by cell; it takes hours:

```
python -m tests.bench --folder tests/bench --keep coverage
```

A dash: no interval or test is given, by the rules of the product; in brackets the share of repetitions that have one,
where not all have. Empty cells are not simulated yet."""
SPEED_HEAD = """# Speed

`make bench` measures all of this on your machine; `python -m tests.bench --record NAME` replaces one table. Figures are
medians of rounds in which each side runs in turn, so that a busy machine slows both alike. Competitors start from the
same weights and see the same batches, and their losses agree (the bench prints them). In `extract` the plain loop takes
the transform of timm or open_clip, one network after another, in a process of its own; thingsvision itself pins
torchvision 0.15.2 and cannot run beside this torch."""


def encoders_page() -> str:
    """Return the page of the encoders."""
    from extract.encoders import ENCODERS, PROFILES

    rows = []
    for one in ENCODERS.values():
        blocks = ", ".join(f"`{one.block(tap.name)}` {' x '.join(map(str, tap.shape))}" for tap in one.taps)
        place = "a model hub" if one.needs_hub else "none" if one.library == "affectory" else "a pip package"
        rows.append(f"| `{one.name}` | {blocks} | {one.description} | {one.library} `{one.architecture}`, {place} |")
    profiles = [
        f"| `{name}` | {', '.join(members)} | {sum(ENCODERS[one].n_features() for one in members):,} |"
        for name, members in PROFILES.items()
    ]
    table = ["| profile | encoders | values per image |", "|---|---|---|", *profiles]
    return ENCODERS_HEAD + "\n".join([*rows, "", *table, ""])


def corpora_page() -> str:
    """Return the page of the corpora."""
    from extract.corpora import CORPORA

    lines = [CORPORA_HEAD]
    for one in CORPORA.values():
        lines += [f"## `{one.name}`", "", f"{_sentence(one.title)} {_sentence(one.obtain)}", ""]
        lines += [f"* Licence: {_escaped(one.licence)}. Default profile: `{one.default_profile}`."]
        lines += [f"* Task `{name}`: {_escaped(text)}" for name, text in one.tasks.items()]
        lines += [
            f"* `--option {key}={option.default}`: {_escaped(option.help)}" for key, option in one.options.items()
        ]
        lines += [f"* Known defect: {_escaped(text)}" for text in one.defects]
        lines += [""]
    return "\n".join(lines)


def fidelity_page() -> str:
    """Return the page of what five papers say and what is done here."""
    from classify.preset import citation, statements, systems

    states = ("agrees", "assumed", "differs")
    found = {system: statements()[system] for system in systems() if statements()[system]}
    lines = [
        FIDELITY_HEAD,
        "",
        "| paper | system | statements | agree | assumed | differ |",
        "|---|---|---|---|---|---|",
    ]
    for system, rows in found.items():
        counts = [sum(one.state == state for one in rows) for state in states]
        lines.append(f"| {citation(system)} | `{system}` | {len(rows)} | {counts[0]} | {counts[1]} | {counts[2]} |")
    every = [one for rows in found.values() for one in rows]
    counts = [sum(one.state == state for one in every) for state in states]
    lines.append(f"| all | | {len(every)} | {counts[0]} | {counts[1]} | {counts[2]} |")
    for system, rows in found.items():
        lines += ["", f"## `{system}`: {citation(system)}", ""]
        lines += ["| | the paper says | here | |", "|---|---|---|---|"]
        for one in rows:
            names = ", ".join(f"`{name}`" for name in one.of)
            of = f" ({names})" if one.of not in (("*",), ()) else ""
            reason = one.differs or one.assumed
            state = f"**{one.state}**: {reason}" if reason else "agrees"
            lines.append(f"| {one.id} | {_cell(one.says)} | {_cell(one.here)} | {_cell(state + of * bool(reason))} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def architecture_page() -> str:
    """Return the page of the architecture, its list of rooms and modules written anew from their docstrings."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    before, after = text.split(ROOMS)[0], text.split(END_OF_ROOMS)[1]
    lines = ["Written from the docstrings by `python -m tests.pages`."]
    for package in ("features_store", "extract", "classify"):
        for folder in sorted({path.parent for path in (ROOT / package).rglob("*.py")}):
            lines += ["", f"### `{folder.relative_to(ROOT).as_posix()}/`", "", _purpose(folder / "__init__.py"), ""]
            modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
            lines += [f"* `{path.name}`: {_purpose(path)}" for path in modules]
    return f"{before}{ROOMS}\n" + "\n".join(lines) + f"\n\n{END_OF_ROOMS}{after}"


def benchmarks_page() -> str:
    """Return the page of the benches: simulated error rates, then speed, each figure with the command that made it."""
    from tests.bench.__main__ import BENCHES
    from tests.bench.bench_coverage import STUDIES, table
    from tests.bench.results import COVERAGE, read_results

    records = [json.loads(line) for line in COVERAGE.read_text(encoding="utf-8").splitlines()]
    lines = [BENCHMARKS_HEAD]
    for study in STUDIES:
        lines += table(study, [one for one in records if one["cell"][0] == study])
    lines += ["", SPEED_HEAD]
    rows = read_results()
    for name in dict.fromkeys(row["bench"] for row in rows):
        mine = [row for row in rows if row["bench"] == name]
        told = dict.fromkeys(f"{row['machine']}; version {row['version']}, {row['date']}" for row in mine)
        facts = ". Other rows: ".join(told)
        lines += ["", f"## `{mine[0]['command']}`", "", f"{_sentence(BENCHES[name][1])} Measured on: {facts}.", ""]
        lines += ["| | | figure |", "|---|---|---|"]
        lines += [f"| {row['case']} | {row['measure']} | {row['value']} {row['unit']} |" for row in mine]
    return "\n".join(lines) + "\n"


def _purpose(path: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0].replace("``", "`")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{_escaped(text[1:])}."


def _escaped(text: str) -> str:
    """Return text in which Markdown sees no tags of HTML and no emphasis."""
    return text.replace("<", "\\<").replace("*", "\\*")


PAGES = {
    "encoders.md": encoders_page,
    "corpora.md": corpora_page,
    "fidelity.md": fidelity_page,
    "architecture.md": architecture_page,
    "benchmarks.md": benchmarks_page,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
