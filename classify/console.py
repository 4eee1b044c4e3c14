"""What is printed: lines, tables and progress bars; no name of a corpus, a class or a file steers the terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape

import typer

from classify.json_file import clean_text
from features_store.console import on_one_line


def say(text: str, *, err: bool = False) -> None:
    """Print text to the standard output, or to the error stream."""
    typer.echo(clean_text(text), err=err)


def note(line: str) -> None:
    """Print a line beside the result, on the error stream."""
    say(f"note: {on_one_line(line)}", err=True)


def paragraph(lines: Sequence[str]) -> str:
    """Join lines of text, each kept on its own line."""
    return "\n".join(map(on_one_line, lines))


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Lay out a table as lines of text, each column as wide as its widest cell."""
    table = [[on_one_line(text) for text in row] for row in rows]
    widths = [max(_width(row[i]) for row in table) for i in range(len(table[0]))]
    padded = ([text + " " * (width - _width(text)) for text, width in zip(row, widths, strict=True)] for row in table)
    return [(indent + "  ".join(row)).rstrip() for row in padded]


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def html_table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table as HTML, its first row and column as headers, every text escaped."""
    head, *body = rows
    cells = "".join(f"<th>{escape(text)}</th>" for text in head)
    lines = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(text)}</td>' for text in rest)}</tr>"
        for first, *rest in body
    )
    caption = f"<caption>{escape(title)}</caption>"
    return f"<table>{caption}<thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], object]]:
    """Give a function that takes how many of how many are done; a terminal shows them after two seconds."""
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", delay=2, leave=False, disable=None) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance
