"""Any layer of a network by the name of its module, and how its output becomes a vector."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from extract.encoders.record import Encoder, Tap
from extract.errors import EncoderError
from features_store.errors import unknown_name

if TYPE_CHECKING:
    import torch

POOLINGS = {
    "mean": "average over all positions, or over all tokens but the leading class and register tokens",
    "max": "largest value over the same positions",
    "cls": "the first token",
    "map": "everything as it is",
}
"""How the output of a layer becomes a vector; a layer that gives a vector anyway takes any but ``cls``."""


def parse_layers(text: str) -> tuple[Tap, ...]:
    """Read what follows ``@`` in the name of an encoder: ``MODULE[:POOLING]``, several joined by ``+``.

    Raises
    ------
    EncoderError
        If a pooling is unknown, or a module has no name.
    """
    taps = []
    for one in text.split("+"):
        module, _, pooling = one.partition(":")
        pooling = pooling or "mean"
        if not module:
            msg = f"no layer stands in {text!r}; write ENCODER@MODULE or ENCODER@MODULE:POOLING, several joined by +"
            raise EncoderError(msg)
        if pooling not in POOLINGS:
            raise EncoderError(unknown_name("pooling", pooling, POOLINGS))
        taps.append(Tap(f"{module}.{pooling}", module=module, pooling=pooling))
    return tuple(dict.fromkeys(taps))


class _Heard(threading.local):
    """Outputs by module of the pass that this thread is making: other threads make others meanwhile."""

    def __init__(self) -> None:
        self.outputs: dict[str, Any] = {}

    def __reduce__(self) -> tuple[type[_Heard], tuple[()]]:
        """Travel empty: networks are sent to actors between their passes."""
        return _Heard, ()


class Listener:
    """Hear what some modules of a network give, and pool it.

    Parameters
    ----------
    encoder : Encoder
        Its taps that name a module are listened to.
    root : torch.nn.Module
        The network.
    last : bool
        Channels stand last in four-dimensional outputs, as in Swin.
    prefix : int
        How many tokens stand before those of the patches.

    Raises
    ------
    EncoderError
        If the network has no such module.
    """

    def __init__(self, encoder: Encoder, root: torch.nn.Module, *, last: bool = False, prefix: int = 0) -> None:
        self.taps = {tap.name: tap for tap in encoder.taps if tap.module}
        self._last, self._prefix = last, prefix
        self._heard = _Heard()
        modules = dict(root.named_modules())
        for name in dict.fromkeys(tap.module for tap in self.taps.values()):
            if name not in modules:
                where = f"layer of {encoder.name}"
                raise EncoderError(unknown_name(where, name, _near(name, [one for one in modules if one])))
            modules[name].register_forward_hook(self._hook(name))

    def vectors(self) -> dict[str, torch.Tensor]:
        """Return the taps of the pass that this thread has just made: each (n, ...).

        Raises
        ------
        EncoderError
            If a module took no part, or gives what cannot be pooled so.
        """
        found, outputs = {}, self._heard.outputs
        for name, tap in self.taps.items():
            if tap.module not in outputs:
                msg = f"layer {tap.module!r} takes no part in the forward pass; choose another"
                raise EncoderError(msg)
            found[name] = self._pool(outputs[tap.module], tap)
        outputs.clear()
        return found

    def details(self) -> dict[str, dict[str, Any]]:
        """Return by tap what the passport says of it beside its name."""
        return {name: {"module": tap.module, "pooling": tap.pooling} for name, tap in self.taps.items()}

    def _hook(self, name: str) -> Callable[..., None]:
        heard = self._heard

        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            heard.outputs[name] = output[0] if isinstance(output, (tuple, list)) else output

        return keep

    def _pool(self, output: Any, tap: Tap) -> torch.Tensor:
        ndim = getattr(output, "ndim", 0)
        if tap.pooling == "map" or (ndim == 2 and tap.pooling != "cls"):
            vector: torch.Tensor = output
        elif ndim == 3:  # (n, n_tokens, width)
            patches = output[:, self._prefix :]
            vector = {
                "mean": lambda: patches.float().mean(1),
                "max": lambda: patches.amax(1),
                "cls": lambda: output[:, 0],
            }[tap.pooling]()
        elif ndim == 4 and tap.pooling != "cls":  # (n, channels, height, width), or channels last
            places = (1, 2) if self._last else (2, 3)
            vector = output.float().mean(places) if tap.pooling == "mean" else output.amax(places)
        else:
            msg = f"layer {tap.module!r} gives {ndim} dimensions, which pooling {tap.pooling!r} does not take; use :map"
            raise EncoderError(msg)
        return vector


def learned_shapes(
    module: torch.nn.Module,
    outputs: Callable[[Any, torch.Tensor], Mapping[str, torch.Tensor]],
    size: Sequence[int],
) -> dict[str, tuple[int, ...]]:
    """Learn the shape of each tap from a pass without numbers; `size` is (height, width) in pixels."""
    import torch

    empty = copy.deepcopy(module).to("meta")
    found = outputs(empty, torch.empty(1, 3, *size, device="meta"))
    return {tap: tuple(tensor.shape[1:]) for tap, tensor in found.items()}


def _near(name: str, valid: list[str]) -> list[str]:
    """Cut the list of a thousand modules to those worth printing."""
    import difflib

    outer = [one for one in valid if "." not in one]
    return list(dict.fromkeys([*difflib.get_close_matches(name, valid, n=4, cutoff=0.4), *outer]))[:16]
