"""Checking that the blocks of a store are what they were when they were made (FORMAT.md sections 5 and 6).

The structure of every file was checked when the store was opened. Here each vector is read once: its status must be
known, its values finite, its digest and the seal of its block the ones that were stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from features_store import seal
from features_store.assembly import progress_bar
from features_store.block import Block
from features_store.listing import check_meaning
from features_store.recompute import MIN_COSINE, Drift, Place, recompute
from features_store.schema import Status
from features_store.store import Store

_PIECE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Finding:
    """Something wrong with a block.

    Attributes
    ----------
    path, block : str
        The dump, and the block in it.
    problem : str
        The sentence, without path and block.
    rows : int
        How many vectors are concerned; 0 if it cannot be said.
    row, view : int or None
        The first of them.
    image_id : str or None
        Id of that row.
    """

    path: str
    block: str
    problem: str
    rows: int = 0
    row: int | None = None
    view: int | None = None
    image_id: str | None = None

    def __str__(self) -> str:
        first = ""
        if self.row is not None:
            first = f"; the first of {self.rows:,} is row {self.row} ({self.image_id}), view {self.view}"
        return f"{self.path}: block {self.block!r} {self.problem}{first}"


@dataclass(frozen=True)
class BlockReport:
    """What was checked of a block.

    Attributes
    ----------
    status : dict
        How many vectors are in each state, by its words.
    sealed, digests : bool
        Whether it has a seal; whether each row has a digest.
    """

    path: str
    block: str
    n_images: int
    n_views: int
    status: dict[str, int]
    sealed: bool
    digests: bool


@dataclass(frozen=True)
class Report:
    """Everything that `verify` found; `findings` and `contradictions` are empty if the store is good.

    Attributes
    ----------
    findings : tuple of Finding
        What is wrong with blocks.
    contradictions : tuple of str
        What is wrong with labels, splits, groups and the list of blocks, one sentence each.
    notes : tuple of str
        What a reader should know, though nothing is damaged.
    checked, not_checked : tuple of str
        What the verdict rests on, and what it does not say.
    """

    blocks: tuple[BlockReport, ...]
    findings: tuple[Finding, ...]
    drifts: tuple[Drift, ...] = ()
    contradictions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()

    def problems(self) -> list[str]:
        """Word everything that is wrong, one sentence each."""
        drifts = [f"{one.path}: {one}" for one in self.drifts if not one.good]
        return [*map(str, self.findings), *self.contradictions, *drifts]

    def as_text(self) -> str:
        """Lay it out for people, problems apart."""
        lines = []
        for one in self.blocks:
            bad = any((one.path, one.block) == (found.path, found.block) for found in self.findings)
            state = "sealed" if one.sealed else "not sealed yet"
            digests = "" if one.digests else ", no row digests"
            counts = ", ".join(f"{count:,} {words}" for words, count in one.status.items())
            lines.append(f"{one.block}: {'DAMAGED' if bad else 'good'}, {state}{digests}: {counts}")
        lines += [f"  {one}" for one in self.drifts]
        known = [one.drift for one in self.drifts if one.drift is not None]
        if known:
            lines.append(
                f"  worst cosine drift of {len(known)} rows: {max(known):.2e} (up to {1 - MIN_COSINE:.0e} is good)"
            )
        lines = lines or ["there is no block to check"]
        lines += [f"note: {one}" for one in self.notes]
        lines += [f"checked: {one}" for one in self.checked]
        lines += [f"not checked: {one}" for one in self.not_checked]
        return "\n".join(lines)


def verify(store: Store, *, progress: Callable[[int], object] | None = None) -> Report:
    """Check every vector and status of a store."""
    reports: list[BlockReport] = []
    findings: list[Finding] = []
    with ThreadPoolExecutor(1) as beside:
        for block in store.blocks.values():
            checking = _Checking(store, block, beside)
            for rows, vectors in _pieces(block):
                checking.update(rows, vectors)
                if progress is not None:
                    progress(vectors.nbytes)
            reports.append(checking.report())
            findings += checking.findings()
    meaning = check_meaning(store)
    checked = _of_blocks(reports)
    not_checked = [*meaning.not_checked, "that the vectors are of these pictures (--recompute)"]
    return Report(
        tuple(reports),
        tuple(findings),
        contradictions=tuple(meaning.contradictions),
        notes=tuple(meaning.notes),
        checked=(*checked, *meaning.checked),
        not_checked=tuple(not_checked),
    )


def _of_blocks(reports: list[BlockReport]) -> list[str]:
    n, sealed, digests = len(reports), sum(one.sealed for one in reports), sum(one.digests for one in reports)
    if not n:
        return []
    return [f"vectors and states of {n} block(s), {sealed} against a seal, {digests} against a digest for each row"]


def verify_with_bar(store: Store) -> Report:
    """Check a store as `verify` does, with a progress bar if it takes long."""
    n_bytes = sum(math.prod(block.shape) * block.dtype.itemsize for block in store.blocks.values())
    with progress_bar(n_bytes, "verifying") as advance:
        return verify(store, progress=advance)


def with_drifts(report: Report, store: Store, n: int, data: Place | None) -> Report:
    """Add the drifts of `n` recomputed rows of each block to a report, with a progress bar if it takes long."""
    with progress_bar(len(store.blocks), "recomputing", unit="block") as advance:
        drifts = recompute(store, n, data=data, progress=advance)
    checked = f"{len(drifts)} vectors against their pictures"
    left = tuple(one for one in report.not_checked if "--recompute" not in one)
    return replace(report, drifts=drifts, checked=(*report.checked, checked), not_checked=left)


def _pieces(block: Block) -> Iterator[tuple[slice, NDArray[np.floating]]]:
    n_images, n_views, n_features = block.shape
    step = max(1, _PIECE_BYTES // (n_views * n_features * block.dtype.itemsize))
    buffer = np.empty((min(step, n_images), n_views, n_features), dtype=block.dtype)
    for start in range(0, n_images, step):
        rows = np.arange(start, min(start + step, n_images))
        for view in range(n_views):
            block.gather(rows, buffer[: len(rows), view], view=view)
        yield slice(start, start + len(rows)), buffer[: len(rows)]


class _Checking:
    """One block while its rows go by."""

    def __init__(self, store: Store, block: Block, beside: Executor) -> None:
        self.beside = beside  # hashing leaves the interpreter, so the seal is computed beside the digests
        self.store = store
        self.block = block
        # Copied first: a writer may be at work, and what becomes written later counts as pending here.
        self.status = np.array(block.status)
        self.stored = None if block.digests is None else np.array(block.digests)
        self.stored_seal = block.stored_seal
        self.sealing = seal.Sealing()
        self.infinite = np.zeros(self.status.shape, dtype=bool)
        self.changed = np.zeros(self.status.shape, dtype=bool)

    def update(self, rows: slice, vectors: NDArray[np.floating]) -> None:
        status = self.status[rows]
        sealing = self.beside.submit(self.sealing.update, vectors, status)
        self.infinite[rows] = (status == Status.WRITTEN) & ~np.isfinite(vectors).all(axis=2)
        if self.stored is not None:
            known = np.where(status > max(Status), Status.PENDING, status)
            for view in range(status.shape[1]):
                computed = seal.digest_rows(vectors[:, view], known[:, view])
                self.changed[rows, view] = (computed != self.stored[rows, view]).any(axis=1)
        sealing.result()

    def report(self) -> BlockReport:
        values, counts = np.unique(self.status, return_counts=True)
        words = [Status(v).reason if v <= max(Status) else f"unknown {v}" for v in values.tolist()]
        return BlockReport(
            path=str(self.block.path),
            block=self.block.name,
            n_images=self.block.shape[0],
            n_views=self.block.shape[1],
            status=dict(zip(words, counts.tolist(), strict=True)),
            sealed=not seal.is_open(self.stored_seal),
            digests=self.stored is not None,
        )

    def findings(self) -> Iterator[Finding]:
        """Word what is wrong, the most telling first."""
        sealed, pending = not seal.is_open(self.stored_seal), self.status == Status.PENDING
        changed = self.changed & ~pending
        n_images = len(self.status)
        sealed_rows = seal.rows_of(self.stored_seal)
        good_seal = not sealed or self.sealing.seal() == self.stored_seal
        yield from self.at(self.status > max(Status), "has a status that does not exist")
        yield from self.at(self.infinite, "has values that are not finite in vectors that count as written")
        if sealed and good_seal:
            yield from self.at(changed, "is as it was sealed, but the digests of some of its rows were changed")
        else:
            yield from self.at(changed, "has vectors, states or digests that were changed after they were written")
        if sealed:
            yield from self.at(pending, "is sealed, and yet has vectors that are pending")
        if sealed_rows != n_images and sealed:
            yield self.one(f"has the seal of {sealed_rows:,} rows, and {n_images:,} rows: it is another block's seal")
        elif not good_seal and self.stored is None:
            yield self.one("was changed after it was sealed; it keeps no row digests, so nobody can tell in which row")
        elif not good_seal and not changed.any() and not pending.any():
            yield self.one("does not agree with its seal, though each row agrees with its digest: the seal was changed")

    def one(self, problem: str) -> Finding:
        return Finding(str(self.block.path), self.block.name, problem)

    def at(self, bad: NDArray[np.bool_], problem: str) -> Iterator[Finding]:
        if bad.any():
            row, view = (int(n) for n in np.argwhere(bad)[0])
            name = self.store.raw_ids[row].decode()
            yield Finding(str(self.block.path), self.block.name, problem, int(bad.sum()), row, view, name)
