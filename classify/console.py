"""What is printed: no name of a corpus, a class or a file steers the terminal that it is printed on."""

from __future__ import annotations

import typer

from classify.json_file import clean_text

__all__ = ["note", "say"]


def say(text: str, *, err: bool = False) -> None:
    """Print text to the standard output, or to the error stream."""
    typer.echo(clean_text(text), err=err)


def note(line: str) -> None:
    """Tell something beside the result."""
    say(f"note: {line}", err=True)
