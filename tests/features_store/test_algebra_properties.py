"""Laws of the algebra of dumps, on stores that hypothesis makes up."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import features_store as fs
from features_store.diff import diff
from features_store.export import export
from features_store.import_ import import_matrix
from features_store.merge import merge
from features_store.subset import subset

settings.register_profile(
    "algebra", max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
LAW = settings.get_profile("algebra")
_number = itertools.count()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """One folder for all examples; in memory where that can be, since each file is made durable."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


def fresh(folder: Path) -> Path:
    """Return a new empty folder."""
    path = folder / str(next(_number))
    path.mkdir()
    return path


@st.composite
def stores(draw: st.DrawFn) -> tuple[fs.Index, list[tuple[fs.BlockSpec, np.ndarray, np.ndarray]]]:
    """Draw an index with everything in it, and blocks with vectors and status."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 9))
    ids = np.array([f"f{rng.integers(3)}/ü{i}.jpg" for i in rng.permutation(n)])
    tasks = [
        fs.Labels(fs.Task("mood", "single", ("a", "b")), rng.integers(-1, 2, n)),
        fs.Labels(
            fs.Task("tags", "multi", ("x", "y")), np.where(rng.random((n, 1)) < 0.3, 255, rng.integers(0, 2, (n, 2)))
        ),
        fs.Labels(fs.Task("va", "regression", ("v",), (1, 9)), np.where(rng.random((n, 1)) < 0.3, np.nan, 5.0)),
    ]
    index = fs.Index(
        ids,
        {labels.task.name: labels for labels in tasks if draw(st.booleans())},
        {"default": fs.Split("default", rng.integers(-1, 3, n)), "cv": fs.Split("cv", rng.integers(0, 4, n), "folds")},
        rng.integers(-1, 4, n) if draw(st.booleans()) else None,
        rng.integers(0, 256, (n, 32)).astype(np.uint8) if draw(st.booleans()) else None,
        {"reader": "toy"} if draw(st.booleans()) else {},
    )
    blocks = []
    for name in ("one.pool", "two.map")[: draw(st.integers(1, 2))]:
        shape, views = draw(st.sampled_from([(3,), (2, 1, 2)])), draw(st.integers(1, 2))
        names = tuple("pqrs"[: int(np.prod(shape))]) if draw(st.booleans()) else None
        passport = {"encoder": name, "versions": {"toy": "1"}, "index_digest": index.digest}
        spec = fs.BlockSpec(name, shape, passport, draw(st.sampled_from(["float16", "float32"])), views, names)
        vectors = rng.normal(size=(n, views, spec.n_features)).astype(spec.dtype)
        lowest = draw(st.sampled_from([0, 1]))  # with and without pending rows
        status = np.where(rng.random((n, views)) < 0.6, 1, rng.integers(lowest, 7, (n, views)))
        blocks.append((spec, vectors, status))
    return index, blocks


def written(folder: Path, index: fs.Index, blocks: list[tuple[fs.BlockSpec, np.ndarray, np.ndarray]]) -> fs.Store:
    """Write a store with the row writer alone, as an extractor does."""
    fs.write_index(folder / "index.h5", index)
    for spec, vectors, status in blocks:
        with fs.BlockWriter(folder / f"{spec.name}.h5", index, spec) as writer:
            for row, view in np.argwhere(status != 0):
                if status[row, view] == 1:
                    writer.write([row], vectors[[row], view], view=int(view))
                else:
                    writer.fail([row], fs.Status(status[row, view]), view=int(view))
            if (status != 0).all():
                writer.seal()
    return fs.open_store(folder)


def equal(one: fs.Store, other: fs.Store) -> None:
    """Compare two stores field by field, without `difference`."""
    assert one.ids.tolist() == other.ids.tolist()
    assert one.index_digest == other.index_digest
    assert one.corpus == other.corpus
    np.testing.assert_equal(one.groups, other.groups)
    np.testing.assert_equal(one.content, other.content)
    for left, right in ((one.labels, other.labels), (one.splits, other.splits), (one.blocks, other.blocks)):
        assert left.keys() == right.keys()
    for name, labels in one.labels.items():
        assert labels.task == other.labels[name].task
        np.testing.assert_equal(labels.values, other.labels[name].values)
    for name, split in one.splits.items():
        assert split.kind == other.splits[name].kind
        np.testing.assert_equal(split.values, other.splits[name].values)
    for name, block in one.blocks.items():
        twin = other.blocks[name]
        assert block.spec == twin.spec
        np.testing.assert_equal(block.status, twin.status)
        known = block.status == 1
        np.testing.assert_equal(block.vectors[known], twin.vectors[known])
        assert block.stored_seal == twin.stored_seal


@LAW
@given(made=stores(), data=st.data())
def test_parts_of_any_partition_of_rows_give_the_whole(folder, made, data) -> None:
    """However the rows are dealt out, nested or not, in whatever order they come back, the whole is the same."""
    here = fresh(folder)
    whole = written(here, *made)
    owner = np.array(data.draw(st.lists(st.integers(0, 2), min_size=whole.n_images, max_size=whole.n_images)))
    parts = []
    for part in np.unique(owner):
        parts.append(here / "parts" / f"{part}.h5")
        subset(whole, parts[-1], rows=np.flatnonzero(owner == part))
    parts = data.draw(st.permutations(parts))
    merge(parts, here / "out" / "flat.h5")
    equal(whole, fs.open_store(here / "out" / "flat.h5"))
    merge(parts[:2], here / "out" / "some.h5")
    merge([*parts[2:], here / "out" / "some.h5"], here / "out" / "nested.h5")
    equal(whole, fs.open_store(here / "out" / "nested.h5"))


@LAW
@given(made=stores(), data=st.data())
def test_parts_of_any_partition_of_blocks_and_rows_give_the_whole(folder, made, data) -> None:
    """Blocks can be parted too, each within each part of the rows."""
    here = fresh(folder)
    whole = written(here, *made)
    cut = data.draw(st.integers(1, whole.n_images - 1))
    rows = np.array(data.draw(st.permutations(range(whole.n_images))))
    parts = []
    for piece, block in itertools.product((rows[:cut], rows[cut:]), whole.blocks):
        parts.append(here / "parts" / f"{len(parts)}.h5")
        subset(whole, parts[-1], rows=piece, blocks=[block])
    merge(data.draw(st.permutations(parts)), here / "out" / "all.h5")
    equal(whole, fs.open_store(here / "out" / "all.h5"))


@LAW
@given(made=stores(), data=st.data())
def test_shards_over_one_index_give_the_whole(folder, made, data) -> None:
    """Writers that each filled some rows of one block, overlapping or not, are merged into the block."""
    here = fresh(folder)
    index, blocks = made
    (here / "whole").mkdir()
    whole = written(here / "whole", index, blocks)
    masks = [np.array(data.draw(st.lists(st.booleans(), min_size=len(index), max_size=len(index)))) for _ in range(2)]
    masks.append(~(masks[0] | masks[1]))
    shards = []
    for number, mask in enumerate(masks):
        shard = here / f"shard{number}"
        shard.mkdir()
        written(shard, index, [(spec, vectors, np.where(mask[:, None], status, 0)) for spec, vectors, status in blocks])
        shards.append(shard)
    merge(data.draw(st.permutations(shards)), here / "merged.h5")
    equal(whole, fs.open_store(here / "merged.h5"))


@LAW
@given(made=stores(), data=st.data())
def test_join_keeps_common_images_in_any_order_of_inputs(folder, made, data) -> None:
    """A join with a subset is the subset, whichever comes first."""
    here = fresh(folder)
    whole = written(here, *made)
    rows = data.draw(st.sets(st.integers(0, whole.n_images - 1), min_size=1))
    subset(whole, here / "cut" / "cut.h5", rows=sorted(rows))
    outs = []
    for order in ((here, here / "cut"), (here / "cut", here)):
        outs.append(here / "joined" / f"{len(outs)}.h5")
        result = merge(order, outs[-1], join=True)
        assert sum(result["lost"].values()) == whole.n_images - len(rows)
        equal(fs.open_store(here / "cut"), fs.open_store(outs[-1]))


@LAW
@given(made=stores(), data=st.data())
def test_difference_is_empty_for_equal_stores_and_for_no_others(folder, made, data) -> None:
    """Any single change is found, and nothing is found where nothing changed."""
    here = fresh(folder)
    for name in ("a", "b"):
        (here / name).mkdir()
    index, blocks = made
    one = written(here / "a", index, blocks)
    merge([here / "a"], here / "same.h5")
    assert diff(one, fs.open_store(here / "same.h5")) == {}
    spec, vectors, status = blocks[0]
    change = data.draw(st.sampled_from(["vector", "status", "passport", "versions", "split", "id", "block"]))
    row = data.draw(st.integers(0, len(index) - 1))
    if change == "vector":
        status[row] = 1
        one = written(fresh(here), index, blocks)
        vectors = vectors.copy()
        vectors[row, 0, 0] += 1
    elif change == "status":
        status = status.copy()
        status[row, 0] = (status[row, 0] + 1) % 7
    elif change in ("passport", "versions"):
        field = {"tap": "other"} if change == "passport" else {"versions": {"toy": "2"}}
        spec = replace(spec, passport={**spec.passport, **field})
    elif change == "split":
        values = index.splits["cv"].values.copy()
        values[row] += 1
        index = replace(index, splits={**index.splits, "cv": fs.Split("cv", values, "folds")})
    elif change == "id":
        ids = index.ids.astype("U40")
        ids[row] = "another.jpg"
        index = replace(index, ids=ids)
    remaining = blocks[1:] if change == "block" else [(spec, vectors, status), *blocks[1:]]
    found = diff(one, written(here / "b", index, remaining))
    expected = {"split": "splits", "id": "ids"}.get(change, "blocks")
    assert list(found) == [expected]


@LAW
@given(made=stores())
def test_what_is_exported_comes_back(folder, made) -> None:
    """Export then import gives each block's first view again; only pending rows become missing ones."""
    here = fresh(folder)
    whole = written(here, *made)
    export(whole, here / "out" / "all.npz")
    for name, block in whole.blocks.items():
        if not (block.status[:, 0] == fs.Status.WRITTEN).any():
            with pytest.raises(fs.MismatchError, match="no usable vector"):
                import_matrix(whole, here / "out" / "all.npz", here / "out" / f"{name}.h5", name=name, key=name)
            continue
        import_matrix(whole, here / "out" / "all.npz", here / "out" / f"{name}.h5", name=name, key=name)
        back = fs.open_store(here / "out" / f"{name}.h5").blocks[name]
        assert back.spec == replace(block.spec, n_views=1)
        status = block.status[:, 0]
        assert back.status[:, 0].tolist() == np.where(status == 0, fs.Status.MISSING, status).tolist()
        np.testing.assert_equal(back.vectors[status == 1, 0], block.vectors[status == 1, 0])
