"""Count the house: ``python tests/house.py [FOLDER]`` prints lines and files by room, records, look-ups, circles.

``python tests/house.py --profile extract run emoji ...`` runs a command, and prints how many of our files and functions
it passed, over all threads.

Lines are those of the three packages, blank ones and comments included; `tests/test_architecture.py` uses the imports.
"""

from __future__ import annotations

import ast
import inspect
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import CodeType, FrameType

PACKAGES = ("features_store", "extract", "classify")


def modules(root: Path) -> dict[str, ast.Module]:
    """Return the syntax tree of each module, by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def imports(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Return by module the modules of the product that it imports, anywhere in it, for types or for use."""
    return {name: {one for node in ast.walk(tree) for one in _imported(node, trees)} for name, tree in trees.items()}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, in any number of steps (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(arrows[name] - {name}):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for name in arrows:
        if name not in index:
            visit(name)
    return found


def room(name: str) -> str:
    """Return the folder of a module: ``classify.heads.modules`` lies in ``classify/heads``."""
    return "/".join(name.split(".")[:2]) if name.count(".") > 1 else name.split(".", maxsplit=1)[0]


def counts(root: Path) -> dict[str, int]:
    """Return the figures by name."""
    trees = modules(root)
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    decorated = [node for node in nodes if isinstance(node, ast.ClassDef)]
    texts = {path: path.read_text() for package in PACKAGES for path in (root / package).rglob("*.py")}
    return {
        "lines": sum(len(text.splitlines()) for text in texts.values()),
        "files": len(texts),
        "records (dataclasses)": sum("dataclass" in ast.unparse(one) for c in decorated for one in c.decorator_list),
        "look-ups report[...] outside report_json": sum(
            _is_report_lookup(node)
            for name, tree in trees.items()
            if "report_json" not in name
            for node in ast.walk(tree)
        ),
        "comparisons of kind": sum(_compares_kind(node) for node in nodes),
        "circles": len(circles(imports(trees))),
    }


def _imported(node: ast.AST, trees: dict[str, ast.Module]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in trees)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        inside = {f"{node.module}.{alias.name}" for alias in node.names}
        yield from inside & trees.keys()
        if node.module in trees and inside - trees.keys():
            yield node.module


def _is_report_lookup(node: ast.AST) -> bool:
    if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Constant):
        return False
    value = node.value
    return (isinstance(value, ast.Attribute) and value.attr == "report") or (
        isinstance(value, ast.Name) and value.id == "report"
    )


def _compares_kind(node: ast.AST) -> bool:
    if not isinstance(node, ast.Compare):
        return False
    return any(
        (isinstance(side, ast.Attribute) and side.attr == "kind") or (isinstance(side, ast.Name) and side.id == "kind")
        for side in (node.left, *node.comparators)
    )


def profile(command: list[str]) -> None:
    """Run a command line; print the number of our files and named functions that it passed."""
    seen: set[CodeType] = set()

    def see(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    sys.path.insert(0, str(Path(__file__).parents[1]))
    run = import_module(f"{command[0]}.__main__").main
    sys.argv = command
    threading.setprofile(see)
    sys.setprofile(see)
    try:
        run()
    except SystemExit as ended:
        print(f"exit code {ended.code}", file=sys.stderr)
    finally:
        sys.setprofile(None)
    homes = [str(Path(__file__).parents[1] / package) for package in PACKAGES]
    named = {
        (code.co_filename, code.co_firstlineno)
        for code in seen
        # Neither the body of a module or class, nor a lambda or comprehension
        if code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")
    }
    ours = {one for one in named if one[0].startswith(tuple(homes))}
    print(f"{len({file for file, _ in ours})} files, {len(ours)} functions")


def main() -> None:
    """Print the figures, then lines and files by room."""
    if sys.argv[1:2] == ["--profile"]:
        profile(sys.argv[2:])
        return
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    for name, count in counts(root).items():
        print(f"{count:7,}  {name}")
    lines: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            place = room(".".join(path.relative_to(root).with_suffix("").parts))
            lines[place] += len(path.read_text().splitlines())
            files[place] += 1
    for place in sorted(lines):
        print(f"{lines[place]:7,} lines in {files[place]:3} files  {place}")
    for circle in circles(imports(modules(root))):
        print("circle:", ", ".join(circle))


if __name__ == "__main__":
    main()
