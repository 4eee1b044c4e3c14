"""Passes without numbers: what the modules of a network give, and of which shape."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from extract.errors import EncoderError
from features_store.errors import first_line

if TYPE_CHECKING:
    import torch

N_IMAGES = 3  # of a learning pass; an output that has not as many rows has lost the order of the images

Pass = Callable[[Any, "torch.Tensor"], Any]
"""``run(module, batch)``: one forward pass of a network."""


@dataclass
class Seen:
    """What a learning pass saw of one module."""

    shape: tuple[int, ...] = ()
    problem: str = ""
    output: Any = None
    version: int = 0

    @property
    def changed(self) -> bool:
        return self.output is not None and int(self.output._version) != self.version


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


def observe(
    name: str, root: torch.nn.Module, run: Pass, size: Sequence[int], modules: Sequence[str]
) -> dict[str, Seen]:
    """Make one pass, without numbers if possible."""
    import torch

    try:
        return observe_empty(root, run, size, modules)
    except Exception:  # some networks make tensors of their own on the CPU
        batch = torch.zeros(N_IMAGES, 3, *size)
    try:
        return _observed(root, run, batch, modules)
    except Exception as error:
        raise EncoderError(_cannot_run(name, size, error)) from error


def _cannot_run(name: str, size: Sequence[int], error: Exception) -> str:
    height, width = size
    return f"the installed library cannot run {name} on images of {height} x {width} pixels: {first_line(error)}"


def observe_empty(root: torch.nn.Module, run: Pass, size: Sequence[int], modules: Sequence[str]) -> dict[str, Seen]:
    import torch

    return _observed(without_numbers(root), run, torch.empty(N_IMAGES, 3, *size, device="meta"), modules)


def _observed(root: torch.nn.Module, run: Pass, batch: torch.Tensor, modules: Sequence[str]) -> dict[str, Seen]:
    import torch

    seen: dict[str, Seen] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            tensor = single_tensor(output)
            if tensor is None:
                seen[name] = Seen(problem="does not give one tensor")
            else:
                seen[name] = Seen(tuple(tensor.shape), "", tensor, int(tensor._version))

        return hook

    handles = [root.get_submodule(name).register_forward_hook(keep(name)) for name in modules]
    try:
        with torch.no_grad():
            run(root, batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


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


def learned_shapes(
    name: str,
    module: torch.nn.Module,
    outputs: Callable[[Any, torch.Tensor], Mapping[str, torch.Tensor]],
    size: Sequence[int],
) -> dict[str, tuple[int, ...]]:
    """Learn the shape of each tap from a pass, without numbers if possible; `size` is (height, width) in pixels.

    Raises EncoderError.
    """
    import torch

    with torch.no_grad():
        try:
            found = outputs(without_numbers(module), torch.empty(N_IMAGES, 3, *size, device="meta"))
        except EncoderError:
            raise
        except Exception:  # some networks make tensors of their own on the CPU
            try:
                found = outputs(module, torch.zeros(N_IMAGES, 3, *size))
            except Exception as error:
                raise EncoderError(_cannot_run(name, size, error)) from error
    for tap, tensor in found.items():
        shape = tuple(getattr(tensor, "shape", ()))
        if not shape or shape[0] != N_IMAGES:
            msg = f"tap {tap!r} of {name} gives {shape or type(tensor).__name__} for {N_IMAGES} images; choose a layer"
            raise EncoderError(msg)
    return {tap: tuple(tensor.shape[1:]) for tap, tensor in found.items()}
