"""The tutorial is run from end to end, and every sentence of the troubleshooting page is one that the code prints."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_readme import environment, make_photos

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs/tutorial.md").read_text()
TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text()


def test_the_tutorial(tmp_path: Path) -> None:
    """Each block ends 0, in order; in the end there are a page, a bundle, and an answer for every picture."""
    make_photos(tmp_path / "photos", 24)
    blocks = re.findall(r"```(sh|python)\n(.*?)```", TUTORIAL, re.DOTALL)
    assert len(blocks) >= 7
    for language, code in blocks:
        start = ["bash", "-e", "-c"] if language == "sh" else [sys.executable, "-c"]
        done = subprocess.run(
            [*start, code], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment()
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert (tmp_path / "mood.zip").is_file()
    answers = (tmp_path / "answers.csv").read_text().splitlines()
    assert len(answers) == 1 + 24


def sentences() -> list[str]:
    """First cell of each row: what the product is said to print."""
    return [
        code
        for row in re.findall(r"^\| (`.*?) \|", TROUBLESHOOTING, re.MULTILINE)
        for code in re.findall(r"`([^`]+)`", row)
    ]


def printed() -> list[str]:
    """Return all texts in the code; what is filled in stands as a blank."""
    found = []
    for package in ("extract", "classify", "features_store"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


PRINTED = "\n".join(printed())


@pytest.mark.parametrize("sentence", sentences())
def test_troubleshooting_quotes_what_is_printed(sentence: str) -> None:
    """The fixed words of the sentence stand in the code."""
    pieces = re.split(r"\b[A-Z][A-Z0-9/]*\b(?:\.\w+)?|'[^']*'|\.\.\.|[:;,()]", sentence)
    fixed = [piece.strip() for piece in pieces if len(piece.strip()) >= 5]
    assert fixed or sentence in PRINTED, f"nothing fixed in {sentence!r}"
    assert [piece for piece in fixed if piece not in PRINTED] == []


def test_a_sentence_that_nothing_prints_is_noticed() -> None:
    """The check above can fail."""
    with pytest.raises(AssertionError):
        test_troubleshooting_quotes_what_is_printed("the moon is made of cheese; choose another moon")
