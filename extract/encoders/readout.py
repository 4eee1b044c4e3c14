"""Any layer of a network by the name of its module, and how its output becomes a vector.

Nothing is assumed of a network: passes over tensors without numbers (torch's "meta" device) show the shape of each
output, a second pass over larger images shows which axes are places or tokens, and the network declares how many
tokens stand before those of the patches. What stays ambiguous is refused.
"""

from __future__ import annotations

import copy
import difflib
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from extract.encoders.spec import EncoderSpec, Tap
from extract.errors import EncoderError
from features_store.errors import first_line, unknown_name

if TYPE_CHECKING:
    import torch

POOLINGS = {
    "mean": "average over all positions, or over all tokens but the leading class and register tokens",
    "max": "largest value over the same positions",
    "cls": "the class token; refused where there is none",
    "map": "everything as it is",
}
"""How the output of a layer becomes a vector; a layer that gives a vector anyway takes any but ``cls``."""

N_IMAGES = 3  # of a probing pass; an output that has not as many rows has lost the order of the images
_WEIGHT_NAMES = re.compile(r"(^|\.)(attn_drop|softmax)$")  # of modules that give the weights of attention
_TOKEN_NAMES = re.compile(r"(^|\.)(cls|class|dist|distill|reg|register)\w*_?(token|embed)")

Pass = Callable[[Any, "torch.Tensor"], Any]
"""``run(module, batch)``: one forward pass of a network."""


def parse_layers(text: str) -> tuple[Tap, ...]:
    """Read what follows ``@`` in the name of an encoder: ``MODULE[:POOLING]``, several joined by ``+``."""
    taps = []
    for layer in text.split("+"):
        module, _, pooling = layer.partition(":")
        pooling = pooling or "mean"
        if not module:
            raise EncoderError(
                f"no layer stands in {text!r}; write ENCODER@MODULE or ENCODER@MODULE:POOLING, several joined by +"
            )
        if pooling not in POOLINGS:
            raise EncoderError(unknown_name("pooling", pooling, POOLINGS))
        taps.append(Tap(f"{module}.{pooling}", module=module, pooling=pooling))
    return tuple(dict.fromkeys(taps))


def full_precision(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Switch mixed precision off, on the device of a tensor."""
    import torch

    device = tensor.device.type
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


class _Captured(threading.local):
    """Vectors by tap of the pass that this thread makes: other threads make others meanwhile."""

    def __init__(self) -> None:
        self.outputs: dict[str, Any] = {}

    def __reduce__(self) -> tuple[type[_Captured], tuple[()]]:
        """Travel empty: networks are sent to actors between their passes."""
        return _Captured, ()


class HookCapture:
    """Capture what the modules that taps name give in a pass, by forward hooks, and pool it.

    `size` is the height and width of the input in pixels; `last` and `n_prefix` are how format 1.0 read all layers of
    this network: channels last in four dimensions, and how many tokens were left out in three. What is read otherwise
    stands in the passport.
    """

    def __init__(
        self, spec: EncoderSpec, root: torch.nn.Module, run: Pass, size: Sequence[int], *, last: bool, n_prefix: int
    ) -> None:
        self.taps = {tap.name: tap for tap in spec.taps if tap.module}
        self._captured = _Captured()
        self._last, self._n_prefix = last, n_prefix
        modules = dict(root.named_modules())
        names = list(dict.fromkeys(tap.module for tap in self.taps.values()))
        for name in names:
            if name not in modules:
                near = difflib.get_close_matches(name, modules, n=4, cutoff=0.4)
                outer = [one for one in modules if one and "." not in one]
                valid = list(dict.fromkeys([*near, *outer]))[:16]
                raise EncoderError(unknown_name(f"layer of {spec.name}", name, valid))
        self._readouts, refused = learn_readouts(spec.name, root, run, size, self.taps.values()) if names else ({}, {})
        for reason in refused.values():
            raise EncoderError(reason)
        for name in names:
            modules[name].register_forward_hook(self._hook(name))

    def outputs(self) -> dict[str, torch.Tensor]:
        """Return the taps of the pass that this thread has just made: each (n, ...)."""
        found = {name: self._captured.outputs[name] for name in self.taps}
        self._captured.outputs.clear()
        return found

    def details(self) -> dict[str, dict[str, Any]]:
        """Return by tap what the passport holds of it beside its name."""
        return {
            name: {
                "module": tap.module,
                "pooling": tap.pooling,
                **self._readouts[name].departures(tap.pooling, last=self._last, n_prefix=self._n_prefix),
            }
            for name, tap in self.taps.items()
        }

    def _hook(self, module: str) -> Callable[..., None]:
        captured = self._captured
        wanted = [(name, tap.pooling, self._readouts[name]) for name, tap in self.taps.items() if tap.module == module]

        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            tensor = output if hasattr(output, "ndim") else single_tensor(output)
            for name, pooling, readout in wanted:  # now: a later layer may write into the output
                captured.outputs[name] = readout.vector(tensor, pooling)

        return keep


# ---- how a layer is read --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Readout:
    """How the output of one layer becomes a vector."""

    axes: tuple[int, ...] = ()  # over which is pooled; () = the output is kept as it is
    n_prefix: int = 0  # tokens that are left out at the front
    changed: bool = False  # a later layer writes into the output; the vector is of what it was before

    def vector(self, output: torch.Tensor, pooling: str) -> torch.Tensor:
        """Return (n, ...), in memory that no later layer writes into."""
        if pooling == "cls":
            return output[:, 0].clone()
        if not self.axes:
            return output.clone()
        positions = output[:, self.n_prefix :] if self.n_prefix else output
        return positions.float().mean(self.axes) if pooling == "mean" else positions.amax(self.axes)

    def departures(self, pooling: str, *, n_prefix: int, last: bool) -> dict[str, Any]:
        """Return what a passport must hold because format 1.0 read the layer otherwise."""
        found: dict[str, Any] = {}
        if pooling in ("mean", "max"):
            if len(self.axes) == 1 and self.n_prefix != n_prefix:
                found["prefix_tokens"] = self.n_prefix
            if len(self.axes) == 2 and (self.axes == (1, 2)) != last:
                found["channels"] = "last" if self.axes == (1, 2) else "first"
        return {**found, "before_in_place": True} if self.changed else found


class _Tokens(NamedTuple):
    """What a network declares of its tokens; None = it has some, or patches, and does not declare how many."""

    n_prefix: int | None  # class and register tokens, which stand before those of the patches
    has_class: bool  # the first one is a class token
    n_patches: int | None


def learn_readouts(
    name: str, root: torch.nn.Module, run: Pass, size: Sequence[int], taps: Iterable[Tap]
) -> tuple[dict[str, Readout], dict[str, str]]:
    """Learn how each tap is read, and by tap the reason why others are refused.

    Two passes are made, at the size that the network takes and, if it can, at twice its edges: the axes that grow are
    those of places or tokens, and as tokens of patches grow fourfold, the others are those before them.
    """
    chosen = list(taps)
    modules = list(dict.fromkeys(tap.module for tap in chosen))
    seen = _probe(name, root, size, lambda network, batch: _outputs(network, run, batch, modules))
    grown: dict[str, tuple[Any, int]] = {}
    if any(tap.pooling != "map" for tap in chosen) and any(
        one is not None and one.ndim > 2 for one, _ in seen.values()
    ):
        try:
            grown = _outputs(without_numbers(root), run, _empty([2 * edge for edge in size]), modules)
        except Exception:  # many networks take one size only
            grown = {}
    found, refused = {}, {}
    for tap in chosen:
        try:
            output, version = _one_row_each(name, tap.module, seen)
            later = grown.get(tap.module, (None, 0))[0]
            larger = None if later is None else tuple(later.shape)
            axes, n_prefix = _positions(name, tap, tuple(output.shape), larger, _declared_tokens(root, tap.module))
            found[tap.name] = Readout(axes, n_prefix, int(output._version) != version)
        except EncoderError as error:
            refused[tap.name] = str(error)
    return found, refused


def _one_row_each(name: str, module: str, seen: Mapping[str, tuple[Any, int]]) -> tuple[Any, int]:
    """Refuse a module without an output, or whose output has not one row for each image."""
    if module not in seen:
        raise EncoderError(f"layer {module!r} takes no part in the forward pass; choose another")
    output, version = seen[module]
    if output is None or output.ndim == 0 or output.shape[0] != N_IMAGES:
        reason = (
            "does not give one tensor"
            if output is None
            else f"gives {tuple(output.shape)} for {N_IMAGES} images, so not one row for each"
        )
        raise EncoderError(f"layer {module!r} of {name} {reason}; choose another")
    return output, version


def _declared_tokens(root: torch.nn.Module, module: str) -> _Tokens:
    """Ask the outermost network around a module that declares its tokens: parts of it know less."""
    parts = module.split(".")
    for end in range(len(parts) + 1):
        owner: Any = root.get_submodule(".".join(parts[:end]))
        if isinstance(getattr(owner, "num_prefix_tokens", None), int):  # timm
            has_class = getattr(owner, "has_class_token", None)
            if has_class is None:
                has_class = getattr(owner, "cls_token", None) is not None
            n_patches = getattr(getattr(owner, "patch_embed", None), "num_patches", None)
            return _Tokens(owner.num_prefix_tokens, bool(has_class), n_patches if isinstance(n_patches, int) else None)
    own: Any = root
    if getattr(own, "class_embedding", None) is not None and hasattr(own, "grid_size"):  # open_clip's own tower
        return _Tokens(1, has_class=True, n_patches=math.prod(own.grid_size))
    unnamed = any(_TOKEN_NAMES.search(name) for name, _ in root.named_parameters())
    return _Tokens(None if unnamed else 0, has_class=False, n_patches=None)


def _positions(
    name: str, tap: Tap, shape: tuple[int, ...], larger: tuple[int, ...] | None, tokens: _Tokens
) -> tuple[tuple[int, ...], int]:
    """Return the axes of places or tokens, and the number of tokens before those of the patches."""
    ndim, where = len(shape), f"layer {tap.module!r} of {name}"
    if tap.pooling == "map" or (ndim == 2 and tap.pooling != "cls"):
        return (), 0
    if ndim == 3:
        n_prefix = _prefix(shape, larger, tokens)
        if tap.pooling == "cls" and (not tokens.has_class or n_prefix == 0):
            raise EncoderError(f"{where} has no class token, which :cls would take; choose :mean, :max or :map")
        if n_prefix is None:
            raise EncoderError(
                f"{where} gives {shape[1:]} for an image, which pooling {tap.pooling!r} cannot read: its axis of "
                "tokens is ambiguous; use :map, or choose another"
            )
        return (1,), n_prefix
    has_places = ndim == 4 and tap.pooling != "cls" and not _WEIGHT_NAMES.search(tap.module)
    axes = _places(shape, larger, tokens) if has_places else None
    if axes is None:
        what = f"{ndim} dimensions" if ndim != 4 or tap.pooling == "cls" else f"{shape[1:]} for an image"
        raise EncoderError(f"{where} gives {what}, which pooling {tap.pooling!r} does not take; use :map")
    return axes, 0


def _prefix(shape: tuple[int, ...], larger: tuple[int, ...] | None, tokens: _Tokens) -> int | None:
    """Return how many tokens stand before the patches in (n, n_tokens, width); None = ambiguous."""
    _, n_tokens, width = shape
    if larger is not None:
        if len(larger) != 3 or larger[2] != width or larger[1] <= n_tokens:
            return None  # no tokens of patches, or not in this place
        before, rest = divmod(4 * n_tokens - larger[1], 3)
        return before if not rest and 0 <= before < n_tokens and before in (0, tokens.n_prefix) else None
    if tokens.n_patches is None and tokens.n_prefix == 0:
        # Places of a square image are a square number
        return 0 if math.isqrt(n_tokens) ** 2 == n_tokens and math.isqrt(width) ** 2 != width else None
    if tokens.n_patches is None or tokens.n_prefix is None:
        return None
    by_count = {tokens.n_patches + tokens.n_prefix: tokens.n_prefix, tokens.n_patches: 0}
    return by_count.get(n_tokens) if width not in by_count else None


def _places(shape: tuple[int, ...], larger: tuple[int, ...] | None, tokens: _Tokens) -> tuple[int, int] | None:
    """Return the axes of height and width; None = ambiguous."""
    if larger is not None and len(larger) == 4 and larger != shape:
        grew = tuple(axis for axis in (1, 2, 3) if larger[axis] != shape[axis])
        # Attention among all tokens grows sixteenfold
        fourfold = any(larger[axis] >= 3 * shape[axis] > 6 for axis in grew)
        return grew if grew in ((1, 2), (2, 3)) and not fourfold else None
    _, first, second, third = shape
    if tokens.n_patches is not None and second >= tokens.n_patches > 1 and second in (first, third):
        return None  # attention among tokens
    if second == third != first:
        return 2, 3
    return (1, 2) if first == second != third else None


# ---- probing passes -------------------------------------------------------------------------------------------------


def learn_shapes(name: str, module: torch.nn.Module, outputs: Pass, size: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Learn the shape of each tap from a pass over images of (height, width) pixels."""
    found = _probe(name, module, size, outputs)
    for tap, tensor in found.items():
        shape = tuple(getattr(tensor, "shape", ()))
        if not shape or shape[0] != N_IMAGES:
            raise EncoderError(
                f"tap {tap!r} of {name} gives {shape or type(tensor).__name__} for {N_IMAGES} images; choose a layer"
            )
    return {tap: tuple(tensor.shape[1:]) for tap, tensor in found.items()}


def _probe(name: str, module: torch.nn.Module, size: Sequence[int], run: Pass) -> Any:
    """Make a pass without numbers if possible, else over zeros."""
    import torch

    with torch.no_grad():
        try:
            return run(without_numbers(module), _empty(size))
        except EncoderError:
            raise
        except Exception:  # some networks make tensors of their own on the CPU
            batch = torch.zeros(N_IMAGES, 3, *size)
        try:
            return run(module, batch)
        except Exception as error:
            height, width = size
            raise EncoderError(
                f"the installed library cannot run {name} on images of {height} x {width} pixels: {first_line(error)}"
            ) from error


def _empty(size: Sequence[int]) -> torch.Tensor:
    import torch

    return torch.empty(N_IMAGES, 3, *size, device="meta")


def without_numbers(module: torch.nn.Module) -> torch.nn.Module:
    """Copy a network to the meta device, its weights left behind."""
    import torch

    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, memo)


def _outputs(
    root: torch.nn.Module, run: Pass, batch: torch.Tensor, modules: Sequence[str]
) -> dict[str, tuple[Any, int]]:
    """Make one pass; return by module its one tensor, or None, and torch's count of writes into it at that moment."""
    import torch

    seen: dict[str, tuple[Any, int]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            tensor = single_tensor(output)
            seen[name] = (tensor, 0 if tensor is None else int(tensor._version))

        return hook

    handles = [root.get_submodule(name).register_forward_hook(keep(name)) for name in modules]
    try:
        with torch.no_grad():
            run(root, batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def single_tensor(output: Any) -> Any:
    """Return the one tensor of an output, None if there are several or none: attention may give (tensor, None)."""
    found = list(_tensors(output))
    return found[0] if len(found) == 1 else None


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    import torch

    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, (tuple, list, dict)):
        for one in output.values() if isinstance(output, dict) else output:
            yield from _tensors(one)
