"""Any layer of a network by the name of its module, and how its output becomes a vector."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from extract.encoders.observation import Pass, single_tensor
from extract.encoders.readout import learn_readouts
from extract.encoders.spec import EncoderSpec, Tap
from extract.errors import EncoderError
from features_store.errors import unknown_name

if TYPE_CHECKING:
    import torch

POOLINGS = {
    "mean": "average over all positions, or over all tokens but the leading class and register tokens",
    "max": "largest value over the same positions",
    "cls": "the class token; refused where there is none",
    "map": "everything as it is",
}
"""How the output of a layer becomes a vector; a layer that gives a vector anyway takes any but ``cls``."""


def parse_layers(text: str) -> tuple[Tap, ...]:
    """Read what follows ``@`` in the name of an encoder: ``MODULE[:POOLING]``, several joined by ``+``.

    Raises EncoderError.
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


class _Captured(threading.local):
    """Vectors by tap of the pass that this thread is making: other threads make others meanwhile."""

    def __init__(self) -> None:
        self.outputs: dict[str, Any] = {}

    def __reduce__(self) -> tuple[type[_Captured], tuple[()]]:
        """Travel empty: networks are sent to actors between their passes."""
        return _Captured, ()


class HookCapture:
    """Hear what some modules of a network give, and pool it.

    Parameters
    ----------
    encoder : EncoderSpec
        Its taps that name a module are listened to.
    root : torch.nn.Module
        The network.
    run : callable
        ``run(root, batch)`` makes the pass in which the modules take part.
    size : (int, int)
        Height and width of the input, pixels.
    last, n_prefix : bool, int
        How format 1.0 read all layers of this network: channels last in four dimensions, and how many tokens were left
        out in three. What is read otherwise stands in the passport.

    Raises
    ------
    EncoderError
        If the network has no such module, or its output cannot be read so.
    """

    def __init__(
        self, encoder: EncoderSpec, root: torch.nn.Module, run: Pass, size: Sequence[int], *, last: bool, n_prefix: int
    ) -> None:
        self.taps = {tap.name: tap for tap in encoder.taps if tap.module}
        self._heard = _Captured()
        self._last, self._n_prefix = last, n_prefix
        modules = dict(root.named_modules())
        names = list(dict.fromkeys(tap.module for tap in self.taps.values()))
        for name in names:
            if name not in modules:
                where = f"layer of {encoder.name}"
                raise EncoderError(unknown_name(where, name, _near(name, [one for one in modules if one])))
        self._readouts, refused = (
            learn_readouts(encoder.name, root, run, size, self.taps.values()) if names else ({}, {})
        )
        for reason in refused.values():
            raise EncoderError(reason)
        for name in names:
            modules[name].register_forward_hook(self._hook(name))

    def vectors(self) -> dict[str, torch.Tensor]:
        """Return the taps of the pass that this thread has just made: each (n, ...)."""
        found = {name: self._heard.outputs[name] for name in self.taps}
        self._heard.outputs.clear()
        return found

    def details(self) -> dict[str, dict[str, Any]]:
        """Return by tap what the passport says of it beside its name."""
        return {
            name: {
                "module": tap.module,
                "pooling": tap.pooling,
                **self._readouts[name].departures(tap.pooling, last=self._last, n_prefix=self._n_prefix),
            }
            for name, tap in self.taps.items()
        }

    def _hook(self, module: str) -> Callable[..., None]:
        heard = self._heard
        wanted = [(name, tap.pooling, self._readouts[name]) for name, tap in self.taps.items() if tap.module == module]

        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            tensor = output if hasattr(output, "ndim") else single_tensor(output)
            for name, pooling, readout in wanted:  # now: a later layer may write into the output
                heard.outputs[name] = readout.vector(tensor, pooling)

        return keep


def _near(name: str, valid: list[str]) -> list[str]:
    """Cut the list of a thousand modules to those worth printing."""
    import difflib

    outer = [one for one in valid if "." not in one]
    return list(dict.fromkeys([*difflib.get_close_matches(name, valid, n=4, cutoff=0.4), *outer]))[:16]
