"""The tutorial is run from end to end, and what the other pages say of the code is held against the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.command import run_program
from tests.pages import PAGES
from tests.test_readme import make_photos

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs/tutorial.md").read_text()
TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block ends 0, in order; in the end there are a page, a bundle, and an answer for every picture."""
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "photos", 24)
    blocks = re.findall(r"```(sh|python)\n(.*?)```", TUTORIAL, re.DOTALL)
    assert len(blocks) >= 7
    for language, code in blocks:
        if language == "python":
            exec(compile(code, "tutorial.md", "exec"), {})
        for line in code.splitlines() if language == "sh" else ():
            command, _, target = line.partition(" > ")
            done = run_program(command)
            assert done.code == 0, f"{line}\n{done.out}\n{done.err}"
            if target:
                Path(target).write_text(done.out)
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


@pytest.mark.parametrize("name", PAGES)
def test_pages_from_the_code_are_current(name: str) -> None:
    """The pages of encoders and corpora say what the tables say; ``python -m tests.pages`` writes them."""
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == PAGES[name]()


def test_architecture_names_files_that_exist() -> None:
    """Each path in the drawing, the walk and the recipes is a file."""
    paths = re.findall(r"`((?:extract|classify|features_store|tests)/[\w/]+\.py)`", ARCHITECTURE)
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_links_lead_somewhere() -> None:
    """Every relative link of the README and of the pages is a file, and its anchor a heading."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if "://" in link:
                continue
            place, _, anchor = link.partition("#")
            target = page if not place else page.parent / place
            assert target.exists(), f"{page.name}: {link}"
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
            assert not anchor or anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], link


def test_readme_is_a_page() -> None:
    """The README stays short enough to be read."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
