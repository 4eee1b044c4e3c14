"""Checkpoint files: what they hold, and whether that is all that a network needs."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.encoders.readout import without_numbers
from extract.encoders.spec import Encoder
from extract.errors import WeightsError
from features_store.atomic import open_regular
from features_store.errors import first_line

if TYPE_CHECKING:
    import torch

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
"""Keys under which training programs keep the weights, in the order in which they are preferred."""
_PREFIXES = ("module.", "_orig_mod.", "model.")
"""Before every name: of training on several devices, of compiled networks, of a network within another."""
_COUNTERS = ("num_batches_tracked", "relative_position_index", "attn_mask", "position_ids", "mask_token", "total_ops")
"""Last parts of names whose values follow from the architecture, or do nothing."""
CLASSIFIERS = ("fc", "head", "head.fc", "head_dist", "classifier", "last_linear", "logits", "heads.head")
"""Modules that are the last layer in one library or another."""
_N_NAMED = 4
_MAX_BYTES = 32 * 2**30


@dataclass
class Fit:
    """How a state dict and a network differ."""

    n_keys: int = 0  # of the network
    missing: list[str] = field(default_factory=list)  # names that only the network has
    unexpected: list[str] = field(default_factory=list)  # names that only the file has
    # By name, the shape in the file and that in the network; these names are missing, too.
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    def below(self, prefix: str) -> Fit:
        """Return what concerns the module of which all names have the prefix, without it."""
        missing, unexpected, shapes = (
            [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
            for names in (self.missing, self.unexpected, self.shapes)
        )
        return Fit(self.n_keys, missing, unexpected, {name: self.shapes[prefix + name] for name in shapes})


def read_state(what: str, path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint, taken out of what a training program wraps around them."""
    import torch

    try:
        with open_regular(path, _MAX_BYTES, links=True) as file:  # a pipe would keep the libraries waiting
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                found: Any = load_file(path)
            else:
                found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a file can be wrong in as many ways as there are files
        raise WeightsError(
            f"{what}: it cannot be read ({first_line(error)}); valid: a state dict, as .pth or .safetensors"
        ) from error
    for _ in _WRAPPERS:
        inner = [found[key] for key in _WRAPPERS if isinstance(found, Mapping) and isinstance(found.get(key), Mapping)]
        found = inner[0] if inner else found
    state = {}
    if isinstance(found, Mapping):
        state = {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise WeightsError(
            f"{what}: it holds no weights; valid: a state dict, also under {', '.join(map(repr, _WRAPPERS))}"
        )
    for prefix in (*_PREFIXES, *_PREFIXES):  # in any order
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


@contextmanager
def unwrapped_file(what: str, path: Path) -> Iterator[Path]:
    """Give a file whose names are those of `read_state`, for libraries that read files only."""
    from safetensors.torch import save_file

    state = read_state(what, path)
    with tempfile.TemporaryDirectory(prefix="affectory-weights-") as folder:
        plain = Path(folder) / "weights.safetensors"
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, plain)
        del state
        yield plain


@contextmanager
def recorded_fit() -> Iterator[Fit]:
    """Let whatever library loads a state dict load what fits of it, and record what does not.

    Libraries decide for themselves which names may be missing, and for networks with auxiliary heads they ignore all
    missing names; what they call in the end is always the same method. Other threads keep the original one.
    """
    import torch

    fit, original, thread = Fit(), torch.nn.Module.load_state_dict, threading.get_ident()

    def load_state_dict(self: Any, state_dict: Mapping[str, Any], *arguments: Any, **options: Any) -> Any:
        if threading.get_ident() != thread:
            return original(self, state_dict, *arguments, **options)
        compared = compare_states(self, state_dict)
        same = {name: tensor for name, tensor in state_dict.items() if name not in compared.shapes}
        found = original(self, same, strict=False, assign=bool(options.get("assign", False)))
        fit.n_keys, fit.shapes = compared.n_keys, compared.shapes
        fit.missing, fit.unexpected = list(found.missing_keys), list(found.unexpected_keys)
        return found

    torch.nn.Module.load_state_dict = load_state_dict  # type: ignore[method-assign]
    try:
        yield fit
    finally:
        torch.nn.Module.load_state_dict = original  # type: ignore[method-assign]


def compare_states(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> Fit:
    """Compare names and shapes as they are."""
    ours = module.state_dict()
    shapes = {
        name: (tuple(tensor.shape), tuple(ours[name].shape))
        for name, tensor in state.items()
        if name in ours and tuple(tensor.shape) != tuple(ours[name].shape)
    }
    missing = [name for name in ours if name not in state or name in shapes]
    return Fit(len(ours), missing, [name for name in state if name not in ours], shapes)


def clear_missing(module: torch.nn.Module, fit: Fit) -> None:
    """Put NaN where nothing was loaded: equal bytes each time, and never the values of a random initialisation."""
    import torch

    state = module.state_dict()
    for name in fit.missing:
        if name in state and torch.is_floating_point(state[name]):
            state[name].fill_(float("nan"))


def check_fit(what: str, encoder: Encoder, fit: Fit, classifiers: Sequence[str] = ()) -> tuple[str, ...]:
    """Refuse weights that lack what a tap needs, or that are of a larger network; return notes on the rest."""
    lacking = _needed(encoder, fit)
    if lacking:
        raise WeightsError(missing_weights(what, fit, lacking))

    def harmless(name: str) -> bool:  # of a head, or nothing that is learned
        module, _, last = name.rpartition(".")
        return last in _COUNTERS or name.lower().startswith("aux") or module in classifiers

    foreign = [name for name in fit.unexpected if not harmless(name)]
    if foreign:
        raise WeightsError(
            f"{what}: it holds {_named(foreign)}, for which this network has no place; name the network that it is of"
        )
    missing, left = (
        [name for name in names if name.rpartition(".")[2] not in _COUNTERS] for names in (fit.missing, fit.unexpected)
    )
    notes = [f"the checkpoint lacks {_named(missing)}, which no tap needs"] if missing else []
    return (*notes, *([f"the checkpoint has {_named(left)} besides, which no tap needs"] if left else []))


def refuse_lacking(what: str, fit: Fit, classifiers: Sequence[str]) -> bool:
    """Refuse weights to start training from that lack more than the last layer; tell whether they lack that.

    Raises WeightsError.
    """
    modules = [(name, *name.rpartition(".")[::2]) for name in fit.missing]
    lacking = [name for name, module, last in modules if module not in classifiers and last not in _COUNTERS]
    if lacking or not fit.n_keys:
        raise WeightsError(missing_weights(what, fit, lacking))
    return any(module in classifiers for _, module, _ in modules)


def missing_weights(what: str, fit: Fit, names: Sequence[str]) -> str:
    """Return the sentence on weights that are needed and not in the file."""
    found = f"{what}: it lacks {_named(names)}, of {fit.n_keys} in this network"
    shapes = [
        f"{name} is {fit.shapes[name][0]} there and {fit.shapes[name][1]} here" for name in names if name in fit.shapes
    ]
    if shapes:
        return f"{found}; {shapes[0]}"
    return f"{found}; it has {_named(fit.unexpected)} instead" if fit.unexpected else found


def _needed(encoder: Encoder, fit: Fit) -> list[str]:
    """Return the missing names that the taps depend on."""
    if not fit.missing or encoder.module is None:
        return []
    reached = _reached(encoder)
    parameters = {name for name, _ in encoder.module.named_parameters(remove_duplicate=False)}
    owners: dict[str, bool] = {}  # by module that has parameters: whether a tap depends on any of them
    for name in parameters:
        owner = name.rpartition(".")[0]
        owners[owner] = owners.get(owner, False) or name in reached
    found = []
    for name in fit.missing:
        owner, _, last = name.rpartition(".")
        needed = name in reached if name in parameters else owners.get(owner, True)
        if needed and last not in _COUNTERS:
            found.append(name)
    return found


def _reached(encoder: Encoder) -> set[str]:
    """Return the names of the parameters that the taps depend on: by torch's graph of one pass without numbers."""
    import torch

    if encoder.module is None or encoder.outputs is None:
        return set()
    empty = without_numbers(encoder.module)
    names: dict[int, list[str]] = {}
    for name, parameter in empty.named_parameters(remove_duplicate=False):
        parameter.requires_grad_()
        names.setdefault(id(parameter), []).append(name)
    try:
        with torch.enable_grad():
            taps = encoder.outputs(empty, torch.empty(1, *encoder.input_shape, device="meta"))
    except Exception:  # a network that needs numbers: then every weight counts
        return {name for several in names.values() for name in several}
    found: set[str] = set()
    pending = [tensor.grad_fn for tensor in taps.values() if tensor.grad_fn is not None]
    done = set()
    while pending:
        node = pending.pop()
        if node in done:
            continue
        done.add(node)
        found.update(names.get(id(getattr(node, "variable", None)), ()))
        pending += [one for one, _ in node.next_functions if one is not None]
    return found


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return f"{len(names)} weights ({', '.join(names[:_N_NAMED])}{more})"
