"""Blocks of maps, as the convolutional head takes them: side by side by channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from classify.errors import TaskError

if TYPE_CHECKING:
    from features_store import Store

__all__ = ["choose_maps"]


def choose_maps(store: Store, names: Sequence[str] = ()) -> tuple[tuple[str, ...], tuple[int, int, int]]:
    """Return the blocks of maps to put side by side, and the shape of the whole.

    Shapes: shape (int, int, int).
    Raises UnknownNameError, TaskError.
    """
    maps = sorted(name for name, block in store.blocks.items() if len(block.item_shape) == 3)
    if not names and len(maps) != 1:
        found = f"several: {', '.join(maps)}; name those to use with --blocks" if maps else "none"
        message = f"this head takes blocks of maps, (channels, height, width), and the store has {found}"
        raise TaskError(message)
    chosen = tuple(names) or tuple(maps)
    shapes = [store.block(name).item_shape for name in chosen]
    for name, shape in zip(chosen, shapes, strict=True):
        if len(shape) != 3:
            valid = ", ".join(maps) or "none"
            message = f"block {name!r} holds vectors of {shape[0]} values, not maps; blocks with maps: {valid}"
            raise TaskError(message)
        if shape[1:] != shapes[0][1:]:
            message = (
                f"the maps of block {name!r} are {shape[1]} x {shape[2]}, those of {chosen[0]!r} {shapes[0][1]} x "
                f"{shapes[0][2]}; only maps of one size can stand side by side"
            )
            raise TaskError(message)
    return chosen, (sum(shape[0] for shape in shapes), shapes[0][1], shapes[0][2])
