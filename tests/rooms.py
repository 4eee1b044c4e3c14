"""The order of the rooms, top first: a room imports only from itself and from rooms below it."""

from __future__ import annotations

ORDER: dict[str, tuple[tuple[str, ...], ...]] = {
    "features_store": (
        ("__main__",),
        ("export", "import_", "diff", "verify", "leakage", "splits", "summary"),
        ("merge", "subset", "matrices"),
        ("align",),
        ("writer", "dump", "store"),
        ("chunked", "hdf5"),
        ("seal", "passport"),
        ("lock", "atomic", "disk"),
        ("schema", "label_kinds", "polarity"),
        ("console", "errors"),
    ),
    "extract": (
        ("__main__",),
        ("check", "fit", "options"),
        ("pipeline", "shards", "recompute", "blocks", "index", "passport"),
        ("engines", "settings"),
        ("encoders",),
        ("corpora",),
        ("inputs",),
        ("progress", "errors"),
    ),
    "classify": (
        ("__main__", "cli"),
        ("api",),
        ("explain",),
        ("inference",),
        ("pages",),
        ("studies",),
        ("runs",),
        ("figures",),
        ("evaluation",),
        ("heads",),
        ("data",),
        ("config", "preset", "toml_text", "json_file", "console", "errors"),
    ),
}


def room(module: str) -> int | None:
    """Return the place of a module's room, 0 being the top; None for a package's own ``__init__``."""
    package, _, inside = module.partition(".")
    name = inside.partition(".")[0]
    return next((place for place, members in enumerate(ORDER.get(package, ())) if name in members), None)


def upward(arrows: dict[str, set[str]]) -> set[str]:
    """Return the imports that go from a room to one above it, as ``"importer -> imported"``."""
    found = set()
    for module, imported in arrows.items():
        here = room(module)
        for other in imported:
            there = room(other)
            same = module.partition(".")[0] == other.partition(".")[0]
            if same and here is not None and there is not None and there < here:
                found.add(f"{module} -> {other}")
    return found
