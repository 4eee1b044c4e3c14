"""How the output of a layer becomes a vector: learned from passes without numbers, and from what a network declares."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from extract.encoders.observation import N_IMAGES, Pass, Seen, observe, observe_empty
from extract.encoders.spec import Tap
from extract.errors import EncoderError

if TYPE_CHECKING:
    import torch

_WEIGHT_NAMES = re.compile(r"(^|\.)(attn_drop|softmax)$")  # of modules that give the weights of attention
_TOKEN_NAMES = re.compile(r"(^|\.)(cls|class|dist|distill|reg|register)\w*_?(token|embed)")


def full_precision(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Switch mixed precision off, on the device of a tensor."""
    import torch

    kind = tensor.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


@dataclass(frozen=True)
class Tokens:
    """What a network declares of its tokens.

    Parameters
    ----------
    n_prefix : int, optional
        Class and register tokens, which stand before those of the patches. None = it has some, and does not say how
        many.
    has_class : bool
        The first one is a class token.
    n_patches : int, optional
        None = not declared.
    """

    n_prefix: int | None
    has_class: bool
    n_patches: int | None


def declared_tokens(root: torch.nn.Module, module: str) -> Tokens:
    """Ask the outermost network around a module that knows of its tokens: parts of it know less."""
    parts = module.split(".")
    for end in range(len(parts) + 1):
        owner: Any = root.get_submodule(".".join(parts[:end]))
        if isinstance(getattr(owner, "num_prefix_tokens", None), int):  # timm
            has_class = getattr(owner, "has_class_token", None)
            if has_class is None:
                has_class = getattr(owner, "cls_token", None) is not None
            n_patches = getattr(getattr(owner, "patch_embed", None), "num_patches", None)
            return Tokens(owner.num_prefix_tokens, bool(has_class), n_patches if isinstance(n_patches, int) else None)
    own: Any = root
    if getattr(own, "class_embedding", None) is not None and hasattr(own, "grid_size"):  # open_clip's own tower
        return Tokens(1, has_class=True, n_patches=math.prod(own.grid_size))
    unnamed = any(_TOKEN_NAMES.search(name) for name, _ in root.named_parameters())
    return Tokens(None if unnamed else 0, has_class=False, n_patches=None)


@dataclass(frozen=True)
class Readout:
    """How the output of one layer becomes a vector.

    Parameters
    ----------
    axes : tuple of int
        Over which is pooled. () = the output is kept as it is.
    n_prefix : int
        Tokens that are left out at the front.
    changed : bool
        A later layer writes into the output; the vector is of what it was before.
    """

    axes: tuple[int, ...] = ()
    n_prefix: int = 0
    changed: bool = False

    def vector(self, output: torch.Tensor, pooling: str) -> torch.Tensor:
        """Return (n, ...), in memory that no later layer writes into."""
        if pooling == "cls":
            return output[:, 0].clone()
        if not self.axes:
            return output.clone()
        positions = output[:, self.n_prefix :] if self.n_prefix else output
        return positions.float().mean(self.axes) if pooling == "mean" else positions.amax(self.axes)

    def departures(self, pooling: str, *, n_prefix: int, last: bool) -> dict[str, Any]:
        """Return what a passport must say because format 1.0 read the layer otherwise."""
        found: dict[str, Any] = {}
        if pooling in ("mean", "max"):
            if len(self.axes) == 1 and self.n_prefix != n_prefix:
                found["prefix_tokens"] = self.n_prefix
            if len(self.axes) == 2 and (self.axes == (1, 2)) != last:
                found["channels"] = "last" if self.axes == (1, 2) else "first"
        return {**found, "before_in_place": True} if self.changed else found


def learn_readouts(
    name: str, root: torch.nn.Module, run: Pass, size: Sequence[int], taps: Iterable[Tap]
) -> tuple[dict[str, Readout], dict[str, str]]:
    """Learn how each tap is read, and which cannot be read without guessing.

    Two passes are made, at the size that the network takes and, if it can, at twice its edges: the axes that grow are
    those of places or tokens, and as tokens of patches grow fourfold, the others are those before them.

    Shapes: size (int, int); returns (dict, dict).
    Raises EncoderError.
    """
    chosen = list(taps)
    modules = list(dict.fromkeys(tap.module for tap in chosen))
    with_places = any(tap.pooling in ("mean", "max", "cls") for tap in chosen)
    seen = observe(name, root, run, size, modules)
    grown: dict[str, Seen] = {}
    if with_places and any(len(one.shape) > 2 for one in seen.values()):
        try:
            grown = observe_empty(root, run, [2 * edge for edge in size], modules)
        except Exception:  # many networks take one size only
            grown = {}
    found, refused = {}, {}
    for tap in chosen:
        try:
            one = _whole(name, tap.module, seen.get(tap.module))
            later = grown[tap.module].shape if tap.module in grown else None
            axes, n_prefix = _positions(name, tap, one.shape, later, declared_tokens(root, tap.module))
            found[tap.name] = Readout(axes, n_prefix, one.changed)
        except EncoderError as error:
            refused[tap.name] = str(error)
    return found, refused


def _whole(name: str, module: str, seen: Seen | None) -> Seen:
    """Refuse a module without an output, or whose output has not one row for each image."""
    if seen is None:
        msg = f"layer {module!r} takes no part in the forward pass; choose another"
        raise EncoderError(msg)
    if seen.problem or seen.shape[0] != N_IMAGES:
        reason = seen.problem or f"gives {seen.shape} for {N_IMAGES} images, so not one row for each"
        msg = f"layer {module!r} of {name} {reason}; choose another"
        raise EncoderError(msg)
    return seen


def _positions(
    name: str, tap: Tap, shape: tuple[int, ...], later: tuple[int, ...] | None, tokens: Tokens
) -> tuple[tuple[int, ...], int]:
    """Return the axes of places or tokens, and the number of tokens before those of the patches."""
    ndim, where = len(shape), f"layer {tap.module!r} of {name}"
    if tap.pooling == "map" or (ndim == 2 and tap.pooling != "cls"):
        return (), 0
    if ndim == 3:
        n_prefix = _prefix(shape, later, tokens)
        if tap.pooling == "cls" and (not tokens.has_class or n_prefix == 0):
            msg = f"{where} has no class token, which :cls would take; choose :mean, :max or :map"
            raise EncoderError(msg)
        if n_prefix is None:
            msg = (
                f"{where} gives {shape[1:]} for an image, and which of these are its tokens cannot be told; "
                "use :map, or choose another"
            )
            raise EncoderError(msg)
        return (1,), n_prefix
    has_places = ndim == 4 and tap.pooling != "cls" and not _WEIGHT_NAMES.search(tap.module)
    axes = _places(shape, later, tokens) if has_places else None
    if axes is None:
        what = f"{ndim} dimensions" if ndim != 4 or tap.pooling == "cls" else f"{shape[1:]} for an image"
        msg = f"{where} gives {what}, which pooling {tap.pooling!r} does not take; use :map"
        raise EncoderError(msg)
    return axes, 0


def _prefix(shape: tuple[int, ...], later: tuple[int, ...] | None, tokens: Tokens) -> int | None:
    """Return how many tokens stand before the patches in (n, n_tokens, width); None = it cannot be told."""
    _, n_tokens, width = shape
    if later is not None:
        if len(later) != 3 or later[2] != width or later[1] <= n_tokens:
            return None  # no tokens of patches, or not in this place
        before, rest = divmod(4 * n_tokens - later[1], 3)
        return before if not rest and 0 <= before < n_tokens and before in (0, tokens.n_prefix) else None
    if tokens.n_patches is None and tokens.n_prefix == 0:
        # Places of a square image are a square number
        return 0 if math.isqrt(n_tokens) ** 2 == n_tokens and math.isqrt(width) ** 2 != width else None
    if tokens.n_patches is None or tokens.n_prefix is None:
        return None
    by_count = {tokens.n_patches + tokens.n_prefix: tokens.n_prefix, tokens.n_patches: 0}
    return by_count.get(n_tokens) if width not in by_count else None


def _places(shape: tuple[int, ...], later: tuple[int, ...] | None, tokens: Tokens) -> tuple[int, int] | None:
    """Return the axes of height and width; None = it cannot be told."""
    if later is not None and len(later) == 4 and later != shape:
        grew = tuple(axis for axis in (1, 2, 3) if later[axis] != shape[axis])
        # Attention among all tokens grows sixteenfold
        fourfold = any(later[axis] >= 3 * shape[axis] > 6 for axis in grew)
        return grew if grew in ((1, 2), (2, 3)) and not fourfold else None
    _, first, second, third = shape
    if tokens.n_patches is not None and second >= tokens.n_patches > 1 and second in (first, third):
        return None  # attention among tokens
    if second == third != first:
        return 2, 3
    return (1, 2) if first == second != third else None
