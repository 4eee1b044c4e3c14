"""What all blocks of one run have in common, whoever makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from extract.inputs.views import CANONICAL, Views


@dataclass(frozen=True)
class Circumstances:
    """What all blocks of one run have in common.

    Parameters
    ----------
    autocast : str, optional
        Type of mixed precision. None = float32 throughout.
    dtype : {"float16", "float32"}
        In which vectors are stored.
    compiled : bool
        Whether the networks run compiled; they differ from those that do not in the last digits.
    identity : mapping, optional
        What the environment says of the device. None = of the first such device of this process.
    batch_size : int, optional
        Images per forward pass; the last bits of a vector depend on it.
    """

    device: str
    autocast: str | None = None
    decoder: str = "torchvision"
    resizer: str = "torchvision"
    dtype: str = "float16"
    views: Views = CANONICAL
    compiled: bool = False
    identity: Mapping[str, Any] | None = None
    batch_size: int | None = None

    @property
    def precision(self) -> str:
        """What `autocast` is called where precision is chosen."""
        return self.autocast or "float32"
