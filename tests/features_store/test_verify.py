"""`verify` finds every flipped bit, names the row, and compares with what is extracted again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import types
from pathlib import Path

import h5py
import honest
import numpy as np
import pytest

import features_store as fs
from features_store.verify import MIN_COSINE, recompute_rows, verify

PARTS = ("vectors", "status", "seal", "digests")


@pytest.fixture
def dump(tmp_path) -> Path:
    """One honest, sealed dump."""
    honest.write(tmp_path / "dump.h5")
    return tmp_path / "dump.h5"


def place(path: Path, part: str) -> tuple[int, int]:
    """Return offset and size of a part of the block, found with plain h5py."""
    with h5py.File(path) as file:
        dataset = file[f"blocks/{honest.BLOCK}/{part}"]
        return dataset.id.get_offset(), dataset.nbytes


def flip(path: Path, offset: int, bit: int) -> None:
    """Flip one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([old ^ 1 << bit]))


def problems(path: Path) -> list[str]:
    """Return the sentences of `verify`."""
    return verify(fs.open_store(path)).problems()


def unseal(path: Path) -> None:
    """Take the seal off."""
    with h5py.File(path, "r+") as file:
        file[f"blocks/{honest.BLOCK}/seal"][:] = 0


def test_good_store(dump, run_command) -> None:
    """An honest dump has no problem, and exit code 0."""
    assert problems(dump) == []
    code, said, wrong = run_command("verify", str(dump))
    assert (code, wrong) == (0, "")
    assert "toy.pool: good, sealed: 45 written, 2 missing, 1 truncated" in said


def test_digests_are_what_the_format_says(dump) -> None:
    """Eight bytes of SHA-256 over the status and the vector, by hand."""
    with h5py.File(dump) as file:
        block = file[f"blocks/{honest.BLOCK}"]
        for row, view in ((0, 0), (7, 1), (4, 0), (9, 1)):
            status = block["status"][row, view]
            text = bytes([status]) + (block["vectors"][row, view].astype("<f2").tobytes() if status == 1 else b"")
            assert block["digests"][row, view].tobytes() == hashlib.sha256(text).digest()[:8]


@pytest.mark.parametrize("part", ["vectors", "status"])
def test_every_flipped_bit_is_found(dump, part) -> None:
    """Any bit of vectors that count, and any bit of the status; the row is named."""
    offset, size = place(dump, part)
    row_bytes = size // honest.N
    with h5py.File(dump) as file:
        written = file[f"blocks/{honest.BLOCK}/status"][:] == 1
    rng = np.random.default_rng(0)
    for position in range(0, size, 5) if part == "status" else rng.choice(size, 40, replace=False).tolist():
        bit = int(rng.integers(8))
        row, view = position // row_bytes, position % row_bytes // (row_bytes // honest.VIEWS)
        flip(dump, offset + position, bit)
        found = problems(dump)
        if written[row, view] or part == "status":
            assert found
            assert all(f"row {row} (Ärger/{row:03d}.jpg), view {view}" in one for one in found), found
        else:
            assert not found, "the vector of a failed row has no meaning"
        flip(dump, offset + position, bit)
    assert problems(dump) == []


@pytest.mark.parametrize("sealed", [True, False])
def test_damage_is_found_without_the_seal_too(dump, sealed) -> None:
    """The digests guard the rows of a block that is still open."""
    if not sealed:
        unseal(dump)
        assert problems(dump) == []
    offset, size = place(dump, "vectors")
    flip(dump, offset + size // 2, 3)
    (found,) = problems(dump)
    assert "changed after they were written; the first of 1 is row 12 (Ärger/012.jpg), view 0" in found


def test_flipped_digest_and_flipped_seal(dump) -> None:
    """Damage of the guards themselves is told apart from damage of what they guard."""
    offset, size = place(dump, "digests")
    flip(dump, offset + size - 1, 0)
    (found,) = problems(dump)
    assert "is as it was sealed, but the digests" in found
    flip(dump, offset + size - 1, 0)
    offset, _ = place(dump, "seal")
    flip(dump, offset + 20, 0)
    (found,) = problems(dump)
    assert "the seal was changed" in found


def test_seal_of_another_block(dump) -> None:
    """The number of rows in the seal is compared."""
    with h5py.File(dump, "r+") as file:
        file[f"blocks/{honest.BLOCK}/seal"][:8] = np.frombuffer((99).to_bytes(8, "little"), "u1")
    (found,) = problems(dump)
    assert "has the seal of 99 rows, and 24 rows" in found


def test_no_digests(dump) -> None:
    """A block of another writer has a seal only: the damage is found, the row cannot be named."""
    with h5py.File(dump, "r+") as file:
        del file[f"blocks/{honest.BLOCK}/digests"]
    assert problems(dump) == []
    offset, _ = place(dump, "vectors")
    flip(dump, offset, 0)
    (found,) = problems(dump)
    assert "keeps no row digests" in found


def test_values_that_are_not_finite(dump) -> None:
    """A written row holds finite values only, whatever its digest says."""
    with h5py.File(dump, "r+") as file:
        file[f"blocks/{honest.BLOCK}/vectors"][3, 1, 2] = np.inf
    assert "not finite" in problems(dump)[0]
    assert "row 3 (Ärger/003.jpg), view 1" in problems(dump)[0]


def test_pending_rows(tmp_path) -> None:
    """Pending rows are no damage in an open block."""
    spec = fs.BlockSpec("b", (3,), {})
    with fs.BlockWriter(tmp_path / "b.h5", honest.index(), spec) as writer:
        writer.write([0, 5], np.ones((2, 3)))
    report = verify(fs.open_store(tmp_path / "b.h5"))
    assert report.problems() == []
    assert "not sealed yet: 22 pending, 2 written" in report.as_text()


def test_pending_row_in_a_sealed_block(dump) -> None:
    """A sealed block with a pending row contradicts itself."""
    with h5py.File(dump, "r+") as file:
        file[f"blocks/{honest.BLOCK}/status"][6, 0] = 0
    assert any("sealed, and yet" in one and "row 6" in one for one in problems(dump))


def test_retried_rows_verify(tmp_path) -> None:
    """A block whose failed rows were reset and written again is good."""
    spec = fs.BlockSpec("b", (3,), {})
    with fs.BlockWriter(tmp_path / "b.h5", honest.index(), spec) as writer:
        writer.write(np.arange(20), np.ones((20, 3)))
        writer.fail(range(20, honest.N), fs.Status.MISSING)
        writer.seal()
    with fs.BlockWriter(tmp_path / "b.h5", honest.index(), spec) as writer:
        again = writer.reset([fs.Status.MISSING])
        assert problems(tmp_path / "b.h5") == []
        writer.write(again, np.ones((len(again), 3)))
        writer.seal()
    assert problems(tmp_path / "b.h5") == []


def test_command_line_names_the_damage(dump, run_command) -> None:
    """Exit code 1, a sentence on the error stream, and the same as JSON."""
    offset, _ = place(dump, "vectors")
    flip(dump, offset, 0)
    code, said, wrong = run_command("verify", str(dump))
    assert code == 1
    assert "DAMAGED" in said
    assert wrong.startswith("error: ")
    assert wrong.count("\n") == 1
    assert "row 0 (Ärger/000.jpg), view 0" in wrong
    code, said, _ = run_command("verify", str(dump), "--json")
    assert code == 1
    assert json.loads(said)["findings"][0]["row"] == 0


def register(monkeypatch, function) -> None:
    """Put a function in the place of the installed one."""
    point = types.SimpleNamespace(load=lambda: function)
    monkeypatch.setattr("features_store.verify.entry_points", lambda group: [point] if function else [])


def rows_again(ids: list[str]) -> list[np.ndarray]:
    """Return the vectors as the toy network makes them."""
    return [honest.vectors()[int(one.split("/")[1][:3])].astype(np.float32) for one in ids]


def test_recompute_asks_as_it_says(dump, monkeypatch) -> None:
    """The registered function gets passport, ids, corpus and folder; equal vectors have no drift."""
    asked = []

    def toy(passport, ids, corpus, data) -> list[np.ndarray]:
        asked.append((passport, ids, corpus, data))
        return rows_again(ids)

    register(monkeypatch, toy)
    drifts = recompute_rows(fs.open_store(dump), 5, Path("pictures"), rng=np.random.default_rng(0))
    ((passport, ids, corpus, data),) = asked
    assert passport == honest.PASSPORT
    assert corpus == honest.index().corpus
    assert data == Path("pictures")
    assert len(set(ids)) == len(drifts) == 5
    assert not {"Ärger/004.jpg", "Ärger/009.jpg"} & set(ids), "failed rows are not asked for"
    assert max(one["drift"] for one in drifts) < 1e-12


def test_recompute_measures_the_drift(dump, monkeypatch, run_command) -> None:
    """The drift of one planted row is 1 - cosine, in closed form; the command names it and ends with 1."""
    old = honest.vectors()[7, 1].astype(np.float64)
    other = old + np.linalg.norm(old) * np.array([0, 0, 0, 0, 0, 0.3])
    expected = 1 - old @ other / np.linalg.norm(old) / np.linalg.norm(other)

    def toy(passport, ids, corpus, data) -> list[np.ndarray | str]:
        made: list[np.ndarray | str] = rows_again(ids)
        if "Ärger/007.jpg" in ids:
            made[ids.index("Ärger/007.jpg")] = np.stack([honest.vectors()[7, 0], other])
        if "Ärger/011.jpg" in ids:
            made[ids.index("Ärger/011.jpg")] = "the file is not there"
        return made

    register(monkeypatch, toy)
    drifts = {one["row"]: one for one in recompute_rows(fs.open_store(dump), 100)}
    assert len(drifts) == 22
    assert drifts[7]["drift"] == pytest.approx(expected, rel=1e-3)
    assert drifts[7]["drift"] > 1 - MIN_COSINE
    assert drifts[11]["failure"] == "the file is not there"
    assert sum(one["drift"] is not None and one["drift"] <= 1 - MIN_COSINE for one in drifts.values()) == 20
    code, said, wrong = run_command("verify", str(dump), "--recompute", "100")
    assert code == 1
    assert f"worst cosine drift of 21 rows: {drifts[7]['drift']:.2e}" in said
    assert wrong.count("\n") == 2
    assert "row 7 (Ärger/007.jpg): cosine drift" in wrong
    assert "row 11 (Ärger/011.jpg): the file is not there" in wrong


def test_recompute_refuses_other_shapes(dump, monkeypatch) -> None:
    """An extractor that answers with another number of values, views or rows is not believed."""
    register(monkeypatch, lambda passport, ids, corpus, data: [one[:, :3] for one in rows_again(ids)])
    with pytest.raises(fs.MismatchError, match="recomputed as"):
        recompute_rows(fs.open_store(dump), 2)
    register(monkeypatch, lambda passport, ids, corpus, data: rows_again(ids)[1:])
    with pytest.raises(fs.MismatchError, match=r"2 rows .* 1 came back"):
        recompute_rows(fs.open_store(dump), 2)


def test_recompute_without_an_extractor(dump, monkeypatch, run_command) -> None:
    """One sentence says what to install."""
    register(monkeypatch, None)
    code, _, wrong = run_command("verify", str(dump), "--recompute", "2")
    assert code == 2
    assert wrong.count("\n") == 1
    assert "pip install 'affectory[extract]'" in wrong
    broken = importlib.metadata.EntryPoint("x", "no_such_module_anywhere:f", "affectory.recompute")
    monkeypatch.setattr("features_store.verify.entry_points", lambda group: [broken])
    with pytest.raises(fs.StoreError, match="affectory"):
        recompute_rows(fs.open_store(dump), 2)
