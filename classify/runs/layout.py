"""The data of a run, laid out from its configuration: store, blocks, rows of each part, and the unfitted head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classify.config import RunConfig, user_path
from classify.data.kinds import kind_of
from classify.data.rows import RowMatrix, ViewedRows, choose_maps, n_views
from classify.data.tasks import TaskRows, choose_blocks, sampled, task_rows
from classify.errors import ConfigError
from classify.heads import HEADS, NONE, head_class, make_head
from features_store import Store, open_store
from features_store.errors import unknown_name
from features_store.polarity import polarity_costs
from features_store.schema import Task

QUICK_IMAGES, QUICK_EPOCHS, QUICK_RESAMPLES = 120, 3, 40


@dataclass(frozen=True)
class Layout:
    """A task laid out on a store."""

    store: Store
    blocks: tuple[str, ...]  # whose vectors stand side by side, in order
    data: TaskRows
    map_shape: tuple[int, int, int] | None = None  # channels, height and width, where the blocks hold maps
    views: str = "all"  # that training draws from

    @cached_property
    def matrices(self) -> dict[str, RowMatrix]:
        """The vectors that each part is scored by: canonical ones, unless validation images are distorted too."""
        found = {name: RowMatrix(self.store, self.blocks, part.rows) for name, part in self.data.parts.items()}
        if self.views == "everywhere" and "validation" in found:
            import torch

            found["validation"] = viewed = ViewedRows(self.store, self.blocks, found["validation"].rows)
            viewed.redraw(torch.Generator().manual_seed(0))  # of each image one view, drawn once
        return found

    @property
    def n_views(self) -> int:
        """How many views training draws from, the most of any block."""
        return n_views(self.store, self.blocks) if self.views != "canonical" else 1

    def to_train_on(self, rows: np.ndarray) -> RowMatrix:
        """Return rows for training: where images have several views, each pass sees another one."""
        if self.n_views > 1:
            return ViewedRows(self.store, self.blocks, rows)
        return RowMatrix(self.store, self.blocks, rows)


def lay_out(config: RunConfig, store: Store | None = None) -> Layout:
    """Choose blocks and rows of the run from its store, which is opened unless it is given."""
    store, shape = store or open_store(user_path(config.store)), None
    if config.head in HEADS and HEADS[config.head].maps:
        blocks, shape = choose_maps(store, config.blocks)
    else:
        blocks = choose_blocks(store, config.blocks)
    data = task_rows(
        store,
        config.task,
        split=config.split,
        blocks=blocks,
        on_failed=config.on_failed,
        merge=config.merge,
        allow_split_groups=config.allow_split_groups,
    )
    return Layout(store, blocks, sampled(data, config.limit, seed=config.seed), shape, config.views)


def unfitted_head(config: RunConfig, layout: Layout) -> Any:
    """Make the head of a run, its options turned from names of classes into what the estimator takes."""
    for name in ("random_state", "name", "kind", "shape"):
        if name in config.settings:
            instead = {"random_state": "give the seed of the run instead", "shape": "it follows from the blocks"}
            raise ConfigError(f"{name!r} is not an option of a head: {instead.get(name, 'the task decides it')}")
    data = layout.data
    if config.head == NONE.name:
        _check_outputs(layout)
    return task_head(
        config.head,
        data.task,
        data.parts["train"].y,
        config.settings,
        seed=config.seed,
        shape=layout.map_shape,
    )


def _check_outputs(layout: Layout) -> None:
    """Refuse blocks that are not the outputs for the classes of the task, by number and, where they have any, name."""
    classes, blocks = layout.data.task.classes, [layout.store.block(name) for name in layout.blocks]
    names = [name for block in blocks for name in block.names or [""] * block.n_features]
    if len(names) != len(classes) or any(name not in ("", own) for name, own in zip(names, classes, strict=True)):
        raise ConfigError(
            f"head none scores {len(classes)} outputs as they are, {', '.join(classes)[:200]}; the blocks "
            f"{', '.join(layout.blocks)} hold {len(names)}, {', '.join(filter(None, names[:8])) or 'without names'}: "
            "name the block of outputs with --blocks"
        )


def task_head(
    name: str,
    task: Task,
    y: NDArray[Any],
    settings: Mapping[str, Any],
    *,
    seed: int,
    shape: tuple[int, int, int] | None = None,
) -> Any:
    """Make a head for training labels of a task: options that name classes are brought to the classes among them."""
    settings = {**settings, "shape": shape} if shape else dict(settings)
    cost = settings.get("cost")
    plain = {key: value for key, value in settings.items() if key != "cost" or not isinstance(cost, str)}
    head = make_head(name, task.kind, random_state=seed, **plain)  # its refusals name classes as the user does
    if kind_of(task).exclusive:
        head.set_params(**class_options(settings, task.classes, np.unique(y).tolist()))
        head.check_options()
    elif isinstance(cost, str):
        raise ConfigError(f"cost is {cost!r}; it is for tasks with one label an image")
    return head


def class_options(settings: Mapping[str, Any], classes: Sequence[str], present: Sequence[int]) -> dict[str, Any]:
    """Bring class weights and costs from the classes of the task to the codes of those that training has."""
    made: dict[str, Any] = {}
    weights = settings.get("class_weight")
    if isinstance(weights, Mapping):
        for name in weights:
            if name not in classes:
                raise ConfigError(unknown_name("class in class_weight", str(name), classes))
        made["class_weight"] = {code: weights.get(classes[code], 1.0) for code in present}
        if sum(weight > 0 for weight in made["class_weight"].values()) < 2:
            raise ConfigError(
                f"class_weight is {dict(weights)}; at least two classes of the training images need one above 0"
            )
    cost = settings.get("cost")
    if isinstance(cost, str):
        if cost != "polarity":
            message = f'cost is {cost!r}; it takes "polarity", or a matrix with a row and a column for each class'
            raise ConfigError(message)
        cost = polarity_costs(classes)
    if cost is not None:
        square = isinstance(cost, list) and len(cost) == len(classes)
        if not square or not all(isinstance(row, list) and len(row) == len(classes) for row in cost):
            raise ConfigError(f"cost is {cost!r}; it takes a row and a column for each of {', '.join(classes)}")
        made["cost"] = [[cost[c][k] for k in present] for c in present]
    return made


def quick(config: RunConfig) -> RunConfig:
    """Return a run cut down to seconds: few images, few epochs or trees; it shows that the run works, no more."""
    length = head_class(config.head, HEADS[config.head].kinds[0] if config.head in HEADS else "single").length
    settings = {**config.settings, **({length: QUICK_EPOCHS} if length else {})}
    return replace(config, settings=settings, limit=QUICK_IMAGES, resamples=QUICK_RESAMPLES)
