"""Which module lies in which room, and the order of the rooms: imports go downwards only.

A room that has its folder already is named by the folder; a module that is still outside of its room by its own name.
"""

from __future__ import annotations

ORDER: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "extract": (
        ("commands", ("__main__", "fit_command")),
        ("check", ("check", "pairs", "duplicates", "fingerprints", "shortcuts")),
        ("fit", ("fit", "recipe", "examples", "distortion")),
        (
            "pipeline",
            (
                "pipeline",
                "recompute",
                "passports",
                "opening",
                "blocks",
                "stores",
                "digests",
                "summary",
                "command_options",
            ),
        ),
        (
            "engines",
            (
                "engines",
                "forward",
                "compilation",
                "streams",
                "memory",
                "local_engine",
                "lane",
                "flow",
                "ray_engine",
                "settings",
            ),
        ),
        ("encoders", ("encoders",)),
        ("corpora", ("corpora", "shards")),
        (
            "inputs",
            (
                *("sources", "names", "walk", "trees", "archives", "members", "remote", "formats"),
                *("images", "jpeg", "pixels", "transforms", "views"),
            ),
        ),
        ("base", ("clock", "errors")),
    ),
    "classify": (
        ("commands", ("__main__", "commands", "output.commands")),
        ("api", ("api",)),
        ("explain", tuple(f"output.{name}" for name in ("explain", "attribution", "heat", "deletion", "explanations"))),
        (
            "inference",
            (
                "model",
                *(f"output.{name}" for name in ("predict", "bundle", "cards", "submission", "submit", "official")),
                *(f"output.{name}" for name in ("passports", "answers", "downloads")),
            ),
        ),
        ("report", ("output",)),
        ("studies", ("ablation", "sweep", "search", "learning", "transfer", "audit", "reproduction")),
        (
            "runs",
            (
                *("experiment", "fitting", "record", "runs", "predictions", "interruption", "identity", "layout"),
                *("report_json", "findings_json"),
            ),
        ),
        ("evaluation", ("evidence",)),
        ("heads", ("heads",)),
        ("solvers", ("solvers",)),
        ("data", ("inputs",)),
        ("base", ("config", "preset", "toml_text", "json_file", "json_schema", "console", "errors")),
    ),
}


def room(module: str) -> tuple[int, str] | None:
    """Return place and name of a module's room, 0 being the top; None for a package's own ``__init__``."""
    package, _, inside = module.partition(".")
    best: tuple[int, int, str] | None = None
    for place, (name, members) in enumerate(ORDER.get(package, ())):
        for member in members:
            if inside == member or inside.startswith(f"{member}."):
                best = max(best or (0, 0, ""), (len(member), place, name))
    return None if best is None else best[1:]


def upward(arrows: dict[str, set[str]]) -> set[str]:
    """Return the imports that go from a room to one above it, as ``"importer -> imported"``."""
    found = set()
    for module, imported in arrows.items():
        here = room(module)
        for other in imported:
            there = room(other)
            same = module.partition(".")[0] == other.partition(".")[0]
            if same and here is not None and there is not None and there[0] < here[0]:
                found.add(f"{module} -> {other}")
    return found
