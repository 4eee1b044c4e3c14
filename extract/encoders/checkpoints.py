"""Checkpoint files: what they hold, and whether that is all that a network needs."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.encoders.observation import without_numbers
from extract.encoders.spec import Encoder
from extract.errors import WeightsError
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


@dataclass
class Fit:
    """What a state dict and a network have not in common.

    Parameters
    ----------
    n_keys : int
        Of the network.
    missing, unexpected : list of str
        Names that only the network has, and only the file.
    shapes : dict
        By name, the shape in the file and that in the network; these names are missing, too.
    """

    n_keys: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    def split(self, prefix: str) -> tuple[Fit, Fit]:
        """Return what concerns the part whose names start so, without the prefix, and the rest."""

        def part(names: list[str], *, inside: bool) -> list[str]:
            return [name.removeprefix(prefix) for name in names if name.startswith(prefix) == inside]

        halves = [
            Fit(
                self.n_keys,
                part(self.missing, inside=inside),
                part(self.unexpected, inside=inside),
                {
                    part([name], inside=inside)[0]: one
                    for name, one in self.shapes.items()
                    if name.startswith(prefix) == inside
                },
            )
            for inside in (True, False)
        ]
        return halves[0], halves[1]


def read_state(what: str, path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint, taken out of what a training program wraps around them.

    Raises WeightsError.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file can be wrong in as many ways as there are files
        msg = f"{what}: it cannot be read ({first_line(error)}); valid: a state dict, as .pth or .safetensors"
        raise WeightsError(msg) from error
    for _ in _WRAPPERS:
        inner = [found[key] for key in _WRAPPERS if isinstance(found, Mapping) and isinstance(found.get(key), Mapping)]
        found = inner[0] if inner else found
    state = {}
    if isinstance(found, Mapping):
        state = {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if not state:
        msg = f"{what}: it holds no weights; valid: a state dict, also under {', '.join(map(repr, _WRAPPERS))}"
        raise WeightsError(msg)
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

    Libraries decide for themselves which names may be missing, and for networks with auxiliary heads they let all of
    them be; what they call in the end is always the same method. Other threads keep the original one.
    """
    import torch

    fit, original, thread = Fit(), torch.nn.Module.load_state_dict, threading.get_ident()

    def load_state_dict(self: Any, state_dict: Mapping[str, Any], *arguments: Any, **options: Any) -> Any:
        if threading.get_ident() != thread:
            return original(self, state_dict, *arguments, **options)
        ours = self.state_dict()
        same = {
            name: tensor
            for name, tensor in state_dict.items()
            if name not in ours or tuple(tensor.shape) == tuple(ours[name].shape)
        }
        found = original(self, same, strict=False, assign=bool(options.get("assign", False)))
        fit.n_keys, fit.missing, fit.unexpected = len(ours), list(found.missing_keys), list(found.unexpected_keys)
        fit.shapes = {
            name: (tuple(state_dict[name].shape), tuple(ours[name].shape)) for name in state_dict if name not in same
        }
        return found

    torch.nn.Module.load_state_dict = load_state_dict  # type: ignore[method-assign]
    try:
        yield fit
    finally:
        torch.nn.Module.load_state_dict = original  # type: ignore[method-assign]


def clear_missing(module: torch.nn.Module, fit: Fit) -> None:
    """Put NaN where nothing was loaded: equal bytes each time, and never the values of a random initialisation."""
    import torch

    state = module.state_dict()
    for name in fit.missing:
        if name in state and torch.is_floating_point(state[name]):
            state[name].fill_(float("nan"))


def check_fit(what: str, network: Encoder, fit: Fit, classifiers: Sequence[str] = ()) -> tuple[str, ...]:
    """Refuse weights that lack what a tap of the network needs, or that are of a larger network.

    Raises WeightsError.
    """
    lacking = _needed(network, fit)
    if lacking:
        raise WeightsError(lacks(what, fit, lacking))
    foreign = [name for name in fit.unexpected if not _harmless(name, classifiers)]
    if foreign:
        msg = f"{what}: it holds {_named(foreign)}, for which this network has no place; name the network that it is of"
        raise WeightsError(msg)
    notes = []
    missing, left = (
        [name for name in names if name.rpartition(".")[2] not in _COUNTERS] for names in (fit.missing, fit.unexpected)
    )
    if missing:
        notes.append(f"the checkpoint lacks {_named(missing)}, which no tap needs")
    if left:
        notes.append(f"the checkpoint has {_named(left)} besides, which no tap needs")
    return tuple(notes)


def lacks(what: str, fit: Fit, names: Sequence[str]) -> str:
    """Return the sentence on weights that are needed and not there."""
    found = f"{what}: it lacks {_named(names)}, of {fit.n_keys} in this network"
    shapes = [
        f"{name} is {fit.shapes[name][0]} there and {fit.shapes[name][1]} here" for name in names if name in fit.shapes
    ]
    if shapes:
        found += f"; {shapes[0]}"
    elif fit.unexpected:
        found += f"; it has {_named(fit.unexpected)} instead"
    return found


def compared(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> Fit:
    """Compare names and shapes as they are, where a library cannot make anything of a file."""
    ours = module.state_dict()
    shapes = {
        name: (tuple(tensor.shape), tuple(ours[name].shape))
        for name, tensor in state.items()
        if name in ours and tensor.shape != ours[name].shape
    }
    missing = [name for name in ours if name not in state or name in shapes]
    return Fit(len(ours), missing, [name for name in state if name not in ours], shapes)


def _needed(network: Encoder, fit: Fit) -> list[str]:
    """Return the missing names that the taps depend on."""
    if not fit.missing or network.module is None:
        return []
    reached = _reached(network)
    owners: dict[str, bool] = {}  # by module that has parameters: whether a tap depends on any of them
    parameters = {name for name, _ in network.module.named_parameters(remove_duplicate=False)}
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


def _reached(network: Encoder) -> set[str]:
    """Return the names of the parameters that the taps depend on: by torch's graph of one pass without numbers."""
    import torch

    if network.module is None or network.outputs is None:
        return set()
    empty = without_numbers(network.module)
    names: dict[int, list[str]] = {}
    for name, parameter in empty.named_parameters(remove_duplicate=False):
        parameter.requires_grad_()
        names.setdefault(id(parameter), []).append(name)
    try:
        with torch.enable_grad():
            taps = network.outputs(empty, torch.empty(1, *network.input_shape, device="meta"))
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
        variable = getattr(node, "variable", None)
        found.update(names.get(id(variable), ()))
        pending += [one for one, _ in node.next_functions if one is not None]
    return found


def _harmless(name: str, classifiers: Sequence[str]) -> bool:
    """Tell whether a weight without a place in the network is of a head, or says nothing."""
    module, _, last = name.rpartition(".")
    return last in _COUNTERS or name.lower().startswith("aux") or module in classifiers


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return f"{len(names)} weights ({', '.join(names[:_N_NAMED])}{more})"
