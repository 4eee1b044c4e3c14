"""Writing a block row by row, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import features_store as fs

N, D = 40, 6


@pytest.fixture
def index() -> fs.Index:
    """Forty images without labels."""
    return fs.Index(np.array([f"set/{i:03d}.jpg" for i in range(N)]))


@pytest.fixture
def spec() -> fs.BlockSpec:
    """A small half-precision block."""
    return fs.BlockSpec("toy.pool", (D,), {"encoder": "toy", "versions": {"toy": "1"}})


@pytest.fixture
def vectors() -> np.ndarray:
    """Vectors that half precision holds exactly."""
    return np.random.default_rng(0).integers(-500, 500, (N, D)).astype(np.float32)


def plain(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read vectors and status with plain h5py, independently of the package."""
    with h5py.File(path, "r") as file:
        group = file["blocks/toy.pool"]
        return group["vectors"][:, 0, :].astype(np.float32), group["status"][:, 0]


def test_rows_land_where_they_belong(tmp_path, index, spec, vectors) -> None:
    """Rows written in any order and in any batches are read back by plain h5py."""
    order = np.random.default_rng(1).permutation(N)
    with fs.BlockWriter(tmp_path / "b.h5", index, spec) as writer:
        for rows in np.array_split(order, 7):
            writer.write(rows, vectors[rows])
    read, status = plain(tmp_path / "b.h5")
    np.testing.assert_array_equal(read, vectors)
    assert set(status) == {fs.Status.WRITTEN}


def test_views_do_not_mix(tmp_path, index, vectors) -> None:
    """Each view has its own row of values and its own status."""
    spec = fs.BlockSpec("toy.pool", (D,), {}, n_views=3)
    with fs.BlockWriter(tmp_path / "b.h5", index, spec) as writer:
        for view in (2, 0):
            writer.write(np.arange(N), vectors + view, view=view)
        assert len(writer.pending()) == N
        writer.write([5], vectors[[5]] + 1, view=1)
        assert 5 not in writer.pending()
    block = fs.open_store(tmp_path / "b.h5").block("toy.pool")
    np.testing.assert_array_equal(block.vectors[:, 2], vectors + 2)
    np.testing.assert_array_equal(block.vectors[:, 0], vectors)
    assert block.status[:, 1].tolist() == [1 if i == 5 else 0 for i in range(N)]


def test_a_vector_that_does_not_fit_fails_its_row_alone(tmp_path, index, spec, vectors) -> None:
    """NaN, infinity and half-precision overflow are recorded, never stored."""
    vectors[3, 2], vectors[4, 0], vectors[5, 1] = np.nan, -np.inf, 70_000
    with fs.BlockWriter(tmp_path / "b.h5", index, spec) as writer:
        status = writer.write(np.arange(N), vectors)
    assert np.flatnonzero(status == fs.Status.NON_FINITE).tolist() == [3, 4, 5]
    read, stored = plain(tmp_path / "b.h5")
    np.testing.assert_array_equal(stored, status)
    good = np.flatnonzero(status == 1)
    np.testing.assert_array_equal(read[good], vectors[good])


def test_resuming_finds_what_is_pending(tmp_path, index, spec, vectors) -> None:
    """A second writer goes on where the first ended, and seals only when nothing is pending."""
    with fs.BlockWriter(tmp_path / "b.h5", index, spec) as writer:
        writer.write(np.arange(10), vectors[:10])
        writer.fail([12], fs.Status.TRUNCATED)
        with pytest.raises(fs.FormatError, match="29 of 40 rows are pending"):
            writer.seal()
    with fs.BlockWriter(tmp_path / "b.h5", index, spec) as writer:
        pending = writer.pending()
        assert pending.tolist() == [10, 11, *range(13, N)]
        writer.write(pending, vectors[pending])
        writer.seal()
    assert fs.open_store(tmp_path / "b.h5").block("toy.pool").sealed


def test_retrying_failed_rows_breaks_the_seal_first(tmp_path, index, spec, vectors) -> None:
    """Only rows with the named failures become pending again."""
    with fs.BlockWriter(tmp_path / "b.h5", index, spec) as writer:
        writer.write(np.arange(N), vectors)
        writer.fail([1, 2], fs.Status.MISSING)
        writer.fail([3], fs.Status.TRUNCATED)
        first = writer.seal()
    with fs.BlockWriter(tmp_path / "b.h5", index, spec) as writer:
        assert writer.reset([fs.Status.MISSING]).tolist() == [1, 2]
        block = fs.open_store(tmp_path / "b.h5").block("toy.pool")
        assert not block.sealed
        assert block.counts() == {fs.Status.PENDING: 2, fs.Status.WRITTEN: N - 3, fs.Status.TRUNCATED: 1}
        writer.write([1, 2], vectors[[1, 2]])
        assert writer.seal() != first


def test_a_sealed_block_takes_no_row(tmp_path, index, spec, vectors) -> None:
    """What was closed for good is not changed behind its seal."""
    with fs.BlockWriter(tmp_path / "b.h5", index, spec) as writer:
        writer.write(np.arange(N), vectors)
        sealed = writer.seal()
        with pytest.raises(fs.FormatError, match="is sealed"):
            writer.write([0], vectors[[1]])
    with fs.BlockWriter(tmp_path / "b.h5", index, spec) as writer, pytest.raises(fs.FormatError, match="is sealed"):
        writer.fail([0], fs.Status.MISSING)
    assert fs.open_store(tmp_path / "b.h5").block("toy.pool").stored_seal == sealed


def test_the_seal_is_what_the_format_says(tmp_path, index, spec, vectors) -> None:
    """Row count, then SHA-256 over vectors (failed rows as zeros) and status, recomputed here by hand."""
    import hashlib
    import struct

    with fs.BlockWriter(tmp_path / "b.h5", index, spec) as writer:
        writer.write(np.arange(N), vectors)
        writer.fail([7], fs.Status.UNDECODABLE)
        writer.seal()
    expected = vectors.astype("<f2")
    expected[7] = 0
    status = np.ones(N, np.uint8)
    status[7] = 3
    by_hand = struct.pack("<Q", N) + hashlib.sha256(expected.tobytes() + status.tobytes()).digest()
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["blocks/toy.pool/seal"][:].tobytes() == by_hand


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"passport": {"encoder": "other"}}, "encoder: 'toy' / 'other'"),
        ({"dtype": "float32"}, "dtype: float16 / float32"),
        ({"shape": (D + 1,)}, "shape"),
        ({"n_views": 2}, "shape"),
        ({"name": "toy.map"}, "holds no block 'toy.map'"),
    ],
)
def test_a_block_made_in_another_way_is_not_continued(tmp_path, index, spec, change, message) -> None:
    """Each field that differs is named with both values."""
    fs.BlockWriter(tmp_path / "b.h5", index, spec).close()
    other = fs.BlockSpec(**{**vars(spec), **change})
    with pytest.raises(fs.MismatchError, match=message):
        fs.BlockWriter(tmp_path / "b.h5", index, other)


def test_circumstances_do_not_decide(tmp_path, index, spec) -> None:
    """A newer library version goes on with the block: versions are a record, not the key."""
    fs.BlockWriter(tmp_path / "b.h5", index, spec).close()
    newer = fs.BlockSpec("toy.pool", (D,), {"encoder": "toy", "versions": {"toy": "2"}})
    fs.BlockWriter(tmp_path / "b.h5", index, newer).close()


def test_another_index_is_refused(tmp_path, index, spec) -> None:
    """Vectors never land on other images."""
    fs.BlockWriter(tmp_path / "b.h5", index, spec).close()
    with pytest.raises(fs.MismatchError, match="index_digest"):
        fs.BlockWriter(tmp_path / "b.h5", fs.Index(index.ids[::-1]), spec)


def test_two_writers_on_one_block(tmp_path, index, spec) -> None:
    """The second is refused and told who holds it; afterwards the lock is gone."""
    import os

    with (
        fs.BlockWriter(tmp_path / "b.h5", index, spec),
        pytest.raises(fs.LockedError, match=f"written by process {os.getpid()} on "),
    ):
        fs.BlockWriter(tmp_path / "b.h5", index, spec)
    fs.BlockWriter(tmp_path / "b.h5", index, spec).close()
    assert [path.name for path in tmp_path.iterdir()] == ["b.h5"]


@pytest.mark.parametrize(
    ("rows", "shape", "message"),
    [
        ([0, 1], (2, D + 1), "takes vectors of shape"),
        ([N], (1, D), "has rows 0 to 39"),
        ([-1], (1, D), "has rows 0 to"),
    ],
)
def test_wrong_rows_and_shapes_are_refused(tmp_path, index, spec, rows, shape, message) -> None:
    """A mistake is an error with both numbers, not a row elsewhere."""
    with fs.BlockWriter(tmp_path / "b.h5", index, spec) as writer, pytest.raises(fs.FormatError, match=message):
        writer.write(rows, np.zeros(shape))


def test_an_index_is_never_overwritten_without_being_asked(tmp_path, index) -> None:
    """An existing file stays as it is; with force it is replaced whole."""
    fs.write_index(tmp_path / "index.h5", index)
    before = (tmp_path / "index.h5").read_bytes()
    other = fs.Index(np.array(["other.jpg"]))
    with pytest.raises(fs.ExistsError, match="nothing is overwritten without --force"):
        fs.write_index(tmp_path / "index.h5", other)
    assert (tmp_path / "index.h5").read_bytes() == before
    fs.write_index(tmp_path / "index.h5", other, force=True)
    assert fs.open_store(tmp_path).ids.tolist() == ["other.jpg"]
    assert [path.name for path in tmp_path.iterdir()] == ["index.h5"]


def test_the_layout_is_what_the_format_says(tmp_path, index) -> None:
    """Contiguous, early allocated, page-aligned, little-endian, readable by HDF5 1.10."""
    spec = fs.BlockSpec("toy.pool", (1024,), {})
    fs.BlockWriter(tmp_path / "b.h5", index, spec).close()
    with h5py.File(tmp_path / "b.h5") as file:
        vectors = file["blocks/toy.pool/vectors"]
        plist = vectors.id.get_create_plist()
        assert plist.get_layout() == h5py.h5d.CONTIGUOUS
        assert plist.get_alloc_time() == h5py.h5d.ALLOC_TIME_EARLY
        assert vectors.id.get_offset() % 4096 == 0
        assert vectors.dtype.str == "<f2"
        assert file.libver[1] in ("v110", "v112", "v114", "v200", "latest")
    blocks = (tmp_path / "b.h5").stat().st_blocks * 512
    assert blocks >= N * 1024 * 2, "the space of every row is reserved before the first one is written"


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of resources")
def test_a_file_that_cannot_grow_is_an_error_wherever_it_ends(tmp_path) -> None:
    """HDF5 loses some faults and crashes at others; none may leave a dump that lacks something."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    rows = np.arange(400)
    index = fs.Index(np.array([f"{i}.jpg" for i in rows]), splits={"s": fs.Split("s", rows % 3)}, groups=rows // 2)
    fs.write_index(tmp_path / "whole.h5", index)
    for limit in range(64, (tmp_path / "whole.h5").stat().st_size, 200):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(fs.DiskSpaceError, match="does not fit on its disk"):
                fs.write_index(tmp_path / "cut.h5", index)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["whole.h5"]
