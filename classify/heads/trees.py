"""Boosted trees read from LightGBM's text: checked line by line, and evaluated with numpy.

LightGBM's own parser trusts its text: a changed child or count makes it read memory that is not its own, or walk for
ever. So nothing reaches it that `read_trees` has not looked at, and the boosters of strangers never reach it: `Trees`
evaluates them, with the same numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from classify.errors import HeadError

MAX_TREES, MAX_LEAVES = 1_000_000, 131_072
_END = "\nend of trees\n"
_HEADER = (
    "version",
    "num_class",
    "num_tree_per_iteration",
    "label_index",
    "max_feature_idx",
    "objective",
    "feature_names",
    "feature_infos",
    "tree_sizes",
)
_OF_NODES = (
    *("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child"),
    *("internal_value", "internal_weight", "internal_count"),
)
_OF_LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
_OF_TREE = ("num_leaves", "num_cat", "is_linear", "shrinkage")
_WHOLE = ("split_feature", "decision_type", "left_child", "right_child", "leaf_count", "internal_count")
_NUMBERS = re.compile(r"[-+0-9.e ]*")
_OBJECTIVE = re.compile(r"(regression)|(binary) sigmoid:([0-9.]{1,12})|(multiclass) num_class:([0-9]{1,5})")
_ZERO = float(np.float32(1e-35))  # what is nearer to 0 counts as 0 where zeros are missing values
_CATEGORICAL, _DEFAULT_LEFT, _ZERO_IS_MISSING, _NAN_IS_MISSING = 1, 2, 4, 8
_DECISIONS = (0, 2, 4, 6, 8, 10)  # each kind of missing value, to either side
_HUGE = 1e300  # numbers beyond it overflow in the first sum that they are part of
_CELLS = 2**21  # pairs of row and tree that are walked at once


@dataclass(frozen=True)
class Trees:
    """Boosted trees, all nodes side by side."""

    text: str  # LightGBM's, up to the end of the trees: what `read_trees` has checked
    objective: str
    n_outputs: int  # trees of one round
    sigmoid: float  # the steepness of a binary objective
    roots: np.ndarray  # (n_trees,); below 0 where a tree is one leaf
    feature: np.ndarray  # (n_nodes,), like the four below
    decision: np.ndarray
    left: np.ndarray  # a child below 0 is the leaf at ``-1 - child``
    right: np.ndarray
    threshold: np.ndarray
    values: np.ndarray  # (n_leaves,)

    def model_to_string(self) -> str:
        """Return LightGBM's text."""
        return self.text

    def predict(self, x: np.ndarray, num_threads: int = 1) -> np.ndarray:
        """Return what LightGBM returns: values, probabilities (binary), or rows of them (multiclass)."""
        size = max(1, _CELLS // max(len(self.roots), 1))
        rows = np.asarray(x, dtype=np.float64)
        raw = np.concatenate([self._raw(rows[start : start + size]) for start in range(0, len(rows), size)])
        if self.objective == "regression":
            return raw[:, 0]
        if self.objective == "binary":
            with np.errstate(over="ignore"):
                return np.asarray(1.0 / (1.0 + np.exp(-self.sigmoid * raw[:, 0])))
        grown = np.exp(raw - raw.max(axis=1, keepdims=True))
        return np.asarray(grown / grown.sum(axis=1, keepdims=True))

    def _raw(self, x: np.ndarray) -> np.ndarray:
        """Return the sums of the leaves' values, in the order of the rounds, (n_rows, n_outputs)."""
        at = np.repeat(self.roots[None], len(x), axis=0)
        rows, trees = np.nonzero(at >= 0)
        while len(rows):
            nodes = at[rows, trees]
            to_left = self._goes_left(x[rows, self.feature[nodes]], nodes)
            at[rows, trees] = sons = np.where(to_left, self.left[nodes], self.right[nodes])
            inner = sons >= 0
            rows, trees = rows[inner], trees[inner]
        leaves = self.values[-1 - at].reshape(len(x), -1, self.n_outputs)
        return np.asarray(np.cumsum(leaves, axis=1)[:, -1])  # one after the other, as LightGBM adds them

    def _goes_left(self, value: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        decision, unknown = self.decision[nodes], np.isnan(value)
        value = np.where(unknown & ((decision & _NAN_IS_MISSING) == 0), 0.0, value)
        zero = ((decision & _ZERO_IS_MISSING) != 0) & (np.abs(value) <= _ZERO)
        missing = zero | (unknown & ((decision & _NAN_IS_MISSING) != 0))
        return np.where(missing, (decision & _DEFAULT_LEFT) != 0, value <= self.threshold[nodes])


def read_trees(text: str, *, n_features: int) -> Trees:
    """Read trees from LightGBM's text."""
    body, end, _ = text.partition(_END)
    if not end or not text.isascii():
        _refuse("it is not LightGBM's text, or is cut short")
    top, *chunks = re.split(r"(?m)^(?=Tree=)", body + "\n")
    head = _header(top, n_features)
    objective = _OBJECTIVE.fullmatch(head["objective"])
    if objective is None:
        _refuse(f"its objective is {head['objective'][:60]!r}; regression, binary and multiclass are read")
    name = objective[1] or objective[2] or objective[4]
    n_outputs = int(objective[5] or 1)
    if (head["num_class"], head["num_tree_per_iteration"]) != (str(n_outputs), str(n_outputs)) or not n_outputs:
        _refuse(f"it has num_class {head['num_class'][:20]} for the objective {head['objective']!r}")
    if not chunks or len(chunks) % n_outputs or len(chunks) > MAX_TREES:
        _refuse(f"it has {len(chunks)} trees for {n_outputs} outputs")
    if head["tree_sizes"].split(" ") != [str(len(chunk)) for chunk in chunks]:
        _refuse("its tree_sizes are not those of its trees")
    trees = [_tree(chunk, number, n_features) for number, chunk in enumerate(chunks)]
    return _together(trees, text=body + _END, objective=name, n_outputs=n_outputs, sigmoid=float(objective[3] or 1.0))


def _refuse(reason: str) -> NoReturn:
    raise HeadError(f"its trees cannot be read: {reason}")


def _lines(text: str, where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if equals:
            if name in found:
                _refuse(f"{where} says {name[:40]} twice")
            found[name] = value
        elif line:
            _refuse(f"{where} has the line {line[:60]!r}")
    return found


def _header(text: str, n_features: int) -> dict[str, str]:
    first, _, rest = text.partition("\n")
    head = _lines(rest, "its header")
    if first != "tree" or list(head) != list(_HEADER):
        _refuse(f"its header has {', '.join(head)[:200]}; it takes {', '.join(_HEADER)}")
    if head["version"] not in ("v3", "v4") or head["label_index"] != "0":
        _refuse(f"it has version {head['version'][:20]!r} and label index {head['label_index'][:20]!r}")
    counts = [head["max_feature_idx"], *(str(head[name].count(" ")) for name in ("feature_names", "feature_infos"))]
    if counts != [str(n_features - 1)] * 3:
        _refuse(f"it is of {head['max_feature_idx'][:20]} features and one, the head of {n_features}")
    return head


def _tree(text: str, number: int, n_features: int) -> dict[str, Any]:
    """Return the arrays of one tree, once they are those of a tree."""
    where = f"tree {number}"
    lines = _lines(text, where)
    if lines.pop("Tree", None) != str(number) or set(lines) != {*_OF_TREE, *_OF_NODES, *_OF_LEAVES}:
        _refuse(f"{where} has {', '.join(lines)[:300]}")
    if lines["num_cat"] != "0" or lines["is_linear"] != "0":
        _refuse(f"{where} splits by categories or has linear leaves; neither is read")
    if not re.fullmatch(r"[0-9]{1,6}", lines["num_leaves"]) or not 1 <= (n := int(lines["num_leaves"])) <= MAX_LEAVES:
        _refuse(f"{where} has {lines['num_leaves'][:20]!r} leaves")
    _numbers(lines["shrinkage"], 1, f"the shrinkage of {where}")
    sizes = {**dict.fromkeys(_OF_NODES, n - 1), **dict.fromkeys(_OF_LEAVES, n)}
    if n == 1:  # a tree of one leaf has its value, and says nothing else
        sizes = {name: 1 if lines[name] else 0 for name in sizes} | {"leaf_value": 1}
    made = {name: _numbers(lines[name], size, f"{name} of {where}") for name, size in sizes.items()}
    if n > 1:
        _check_shape(made, n, where, n_features)
    return {"n": n, **made}


def _numbers(text: str, size: int, where: str) -> np.ndarray:
    name, cells = where.partition(" ")[0], text.split(" ") if text else []
    # What has no value lies beyond every number: LightGBM writes such a split with an endless threshold.
    finite = re.sub(r"\binf\b", "0", text) if name == "threshold" else text
    if len(cells) != size or not _NUMBERS.fullmatch(finite):
        _refuse(f"{where} is {text[:60]!r}; it takes {size} numbers")
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        _refuse(f"{where} is {text[:60]!r}; it takes numbers")
    if name == "threshold":
        return values
    if not np.isfinite(values).all() or np.abs(values).max(initial=0.0) > _HUGE:
        _refuse(f"{where} holds a number that is too large")
    if name not in _WHOLE:
        return values
    if (values % 1 != 0).any() or np.abs(values).max(initial=0.0) > 2**31 - 1:
        _refuse(f"{where} holds a number that is not whole, or too large")
    return values.astype(np.int64)


def _check_shape(made: dict[str, np.ndarray], n: int, where: str, n_features: int) -> None:
    sons = np.concatenate([made["left_child"], made["right_child"]])
    parents = np.tile(np.arange(n - 1), 2)
    # A node is numbered after its parent, so that each is reached, and no walk goes round.
    if not np.array_equal(np.sort(sons), np.concatenate([np.arange(-n, 0), np.arange(1, n - 1)])):
        _refuse(f"{where} does not reach each of its nodes and leaves once")
    if (sons[sons >= 0] <= parents[sons >= 0]).any():
        _refuse(f"{where} goes round")
    if made["split_feature"].min() < 0 or made["split_feature"].max() >= n_features:
        _refuse(f"{where} splits by a feature beyond the {n_features} of the head")
    if not np.isin(made["decision_type"], _DECISIONS).all():
        _refuse(f"{where} has a decision_type that is not of numbers")


def _together(trees: list[dict[str, Any]], **about: Any) -> Trees:
    """Put the nodes and leaves of all trees side by side."""
    inner = np.array([tree["n"] - 1 for tree in trees])
    leaves = np.array([tree["n"] for tree in trees])
    first_node, first_leaf = np.cumsum(inner) - inner, np.cumsum(leaves) - leaves
    kept = [i for i, tree in enumerate(trees) if tree["n"] > 1]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([trees[i][name] for i in kept]) if kept else np.zeros(0, dtype=np.int64)

    def moved(name: str) -> np.ndarray:
        sons, nodes, ends = joined(name), np.repeat(first_node, inner), np.repeat(first_leaf, inner)
        return np.where(sons >= 0, sons + nodes, sons - ends)

    return Trees(
        **about,
        roots=np.where(inner > 0, first_node, -1 - first_leaf),
        feature=joined("split_feature"),
        decision=joined("decision_type"),
        left=moved("left_child"),
        right=moved("right_child"),
        threshold=joined("threshold").astype(np.float64),
        values=np.concatenate([tree["leaf_value"] for tree in trees]),
    )
