"""The rules between the packages: who imports whom, what is public, what is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import house
import pytest
import rooms

ROOT = Path(__file__).parents[1]
PACKAGES = ("features_store", "extract", "classify")
PIXELS = {"classify/inference/predictor.py", "classify/explain/explainer.py"}
FORBIDDEN_NAMES = {"utils", "helpers", "manager", "trainer", "misc", "common"}


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Names of the top-level packages that a module imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def violations(path: Path, relative: str) -> set[str]:
    """What a module imports although the import rule forbids it."""
    package, names = relative.partition("/")[0], imported(path)
    if package == "features_store":
        return names & {"extract", "classify", "torch", "torchvision", "timm", "open_clip"}
    if package == "extract":
        return names & {"classify"}
    if relative in PIXELS:
        return imported(path, top_level_only=True) & {"extract"}
    return names & {"extract", "torchvision", "timm", "open_clip"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_import_rule(path: Path) -> None:
    """Data flows one way: features_store knows no neighbour, extract and classify know only features_store."""
    assert violations(path, path.relative_to(ROOT).as_posix()) == set()


@pytest.mark.parametrize(
    ("relative", "source", "found"),
    [
        ("features_store/x.py", "def f():\n    import torch", {"torch"}),
        ("features_store/x.py", "from extract.inputs.images import decode", {"extract"}),
        ("extract/x.py", "import classify.runs.folder", {"classify"}),
        ("classify/runs/folder.py", "def f():\n    from extract import images", {"extract"}),
        ("classify/inference/predictor.py", "from extract import images", {"extract"}),
        ("classify/inference/predictor.py", "def f():\n    from extract import images", set()),
    ],
)
def test_import_rule_fires(tmp_path: Path, relative: str, source: str, found: set[str]) -> None:
    """The check above sees each kind of trespass."""
    module = tmp_path / "module.py"
    module.write_text(source)
    assert violations(module, relative) == found


EXPECTED_UPWARD: set[str] = set()
EXPECTED_CIRCLES = 0


def test_rooms_import_downwards_only() -> None:
    """For functions and for types. What is still expected here is to be mended; the list only shrinks."""
    trees = house.modules(ROOT)
    assert [
        name for name in trees if "." in name and rooms.room(name) is None and name.split(".")[0] in rooms.ORDER
    ] == []
    assert rooms.upward(house.imports(trees)) == EXPECTED_UPWARD
    assert len(house.circles(house.imports(trees))) == EXPECTED_CIRCLES


def test_an_import_upwards_and_a_circle_are_seen() -> None:
    """The check above can fail."""
    arrows = {
        "extract.inputs.images": {"extract.pipeline"},
        "extract.pipeline": {"extract.inputs.images"},
        "extract.errors": set(),
    }
    assert rooms.upward(arrows) == {"extract.inputs.images -> extract.pipeline"}
    assert house.circles(arrows) == [["extract.inputs.images", "extract.pipeline"]]


def test_files_are_small_and_named_by_nouns() -> None:
    """A file is at most 450 lines, and none is a drawer."""
    too_long = {str(path): n for path in modules() if (n := len(path.read_text().splitlines())) > 450}
    assert too_long == {}
    assert [path for path in modules() if path.stem in FORBIDDEN_NAMES] == []


def test_cuda_is_named_in_one_file() -> None:
    """Its interface is that of a device; other code has the word only as a value of an option, or in texts."""
    found = {}
    for path in (path for path in modules() if path.is_relative_to(ROOT / "extract") and path.name != "cuda.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        named = [node.lineno for node in nodes if isinstance(node, ast.Attribute) and node.attr == "cuda"]
        named += [node.lineno for node in nodes if isinstance(node, ast.Constant) and node.value == "cuda"]
        if named:
            found[path.relative_to(ROOT).as_posix()] = named
    assert found == {}


def test_progress_bars_are_for_terminals() -> None:
    """Each says where it is shown: tqdm on its own draws into pipes and files, too."""
    calls = [
        (path.name, node)
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tqdm"
    ]
    always = [name for name, call in calls if not {key.arg for key in call.keywords} & {"disable", None}]
    assert calls
    assert always == []


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_listed(package: str) -> None:
    """Packages are named one by one in pyproject.toml; a new folder must be added there."""
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / package).rglob("__init__.py")}
    text = (ROOT / "pyproject.toml").read_text()
    assert {folder for folder in folders if f'"{folder}"' not in text} == set()


def test_public_names_of_features_store() -> None:
    """`__all__` is what the package offers, in alphabetical order."""
    import features_store

    public = [
        name
        for name, value in vars(features_store).items()
        if getattr(value, "__module__", "").startswith("features_store.")
    ]
    assert sorted(features_store.__all__) == sorted(public)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("features_store", ("torch", "sklearn", "matplotlib", "PIL")),
        ("features_store.__main__", ("torch", "sklearn", "matplotlib", "PIL")),
        ("extract.__main__", ("torch", "timm", "open_clip", "classify")),
        ("classify.__main__", ("torch", "sklearn", "lightgbm", "matplotlib", "extract")),
    ],
)
def test_imports_are_light(module: str, absent: tuple[str, ...]) -> None:
    """A command's help must not wait for libraries that the command does not need."""
    code = f"import sys, {module}; print(sorted(set({absent!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
