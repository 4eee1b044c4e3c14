"""Images of equal bytes, found without reading those whose size is theirs alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from extract.inputs.trees import Tree


def equal_files(tree: Tree, paths: Sequence[str]) -> list[list[int]]:
    """Group files of equal bytes."""
    from tqdm import tqdm

    by_size: dict[int, list[int]] = {}
    for row, path in enumerate(paths):
        by_size.setdefault(tree.size(path), []).append(row)
    candidates = [row for size, rows in by_size.items() if size >= 0 and len(rows) > 1 for row in rows]
    by_content: dict[bytes, list[int]] = {}
    for row in tqdm(sorted(candidates), desc="equal images", unit=" images", leave=False, delay=2, disable=None):
        by_content.setdefault(hashlib.sha256(tree.read(paths[row])).digest(), []).append(row)
    return [rows for rows in by_content.values() if len(rows) > 1]
