"""Checking that a store is what it was when it was made (FORMAT.md sections 4 to 6 and 9).

The structure of every file is checked when the store is opened. Here each vector is read once: its status must be
known, its values finite, its digest and the seal of its block the ones that were stored. Labels, splits and groups are
compared with their digest, and so are the corpus and the digests of the image files. ``store.json`` in the folder of a
store names its blocks with their seals, so that a block that was removed or exchanged is noticed; it is written when
the user asks for it, and is no part of any seal.

Some rows can be extracted again and compared. This package knows no network. A distribution that does registers one
function under the entry point group ``affectory.recompute``, by any name::

    [project.entry-points."affectory.recompute"]
    extract = "extract.recompute:recompute"

    def recompute(
        passport: Mapping[str, Any],     # of one block, as stored
        ids: Sequence[str],              # n ids of the index
        corpus: Mapping[str, Any],       # of the store: name and options of the reader that made the index
        data: Path | Mapping[str, Path] | None,  # the images, or those of each member of a union; None = known
        networks: Sequence[Path],        # only if the user names folders of networks that may have made the block
        allow_download: bool,            # only if the user allows that weights are fetched, by keyword
    ) -> Sequence[NDArray[np.floating] | str]

It returns n items in the order of `ids`: an array of shape ``(n_views, n_features)``, view 0 first, of any float type;
or, for an image that has no vector, one string that says why. It makes the vectors as the passport says, on any
device, and raises an `AffectoryError` if it cannot make that block at all (other weights, no images).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_store import seal
from features_store.atomic import atomic_write, read_regular
from features_store.console import progress_bar
from features_store.dump import dumps_of, read_dump
from features_store.errors import FormatError, MismatchError, StoreError
from features_store.passport import json_object
from features_store.schema import Status
from features_store.store import Block, Store

LIST_FILE = "store.json"
GROUP = "affectory.recompute"
MIN_COSINE = 0.999
"""Below it, a vector is another one: decoders, devices and library versions stay above it."""

_PIECE_BYTES = 16 * 2**20
_LIST_FORMAT = "affectory-store"
_MAX_LIST_BYTES = 16 * 2**20

Place = Path | Mapping[str, Path]
Recompute = Callable[..., Sequence["NDArray[np.floating] | str"]]


@dataclass
class Report:
    """Everything that `verify` found."""

    blocks: list[dict[str, Any]] = field(default_factory=list)  # status counts; whether sealed, and with row digests
    findings: list[dict[str, Any]] = field(default_factory=list)  # damage of blocks, with the first row of each kind
    drifts: list[dict[str, Any]] = field(default_factory=list)  # rows extracted again: 1 - cosine, or why it failed
    contradictions: list[str] = field(default_factory=list)  # of labels, splits, groups and the list of blocks
    notes: list[str] = field(default_factory=list)  # what a reader should know, though nothing is damaged
    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """Word everything that is wrong, one sentence each; none if the store is good."""
        words = []
        for one in self.findings:
            first = f"; the first of {one['rows']:,} is row {one['row']} ({one['image_id']}), view {one['view']}"
            words.append(f"{one['path']}: block {one['block']!r} {one['problem']}{first if one['rows'] else ''}")
        drifts = [f"{one['path']}: {_drift_text(one)}" for one in self.drifts if not _same_vector(one)]
        return [*words, *self.contradictions, *drifts]

    def as_text(self) -> str:
        """Lay it out for people, problems apart."""
        lines = []
        for one in self.blocks:
            bad = any((one["path"], one["block"]) == (found["path"], found["block"]) for found in self.findings)
            state = "sealed" if one["sealed"] else "not sealed yet"
            digests = "" if one["digests"] else ", no row digests"
            counts = ", ".join(f"{count:,} {words}" for words, count in one["status"].items())
            lines.append(f"{one['block']}: {'DAMAGED' if bad else 'good'}, {state}{digests}: {counts}")
        lines += [f"  {_drift_text(one)}" for one in self.drifts]
        known = [one["drift"] for one in self.drifts if one["drift"] is not None]
        if known:
            lines.append(
                f"  worst cosine drift of {len(known)} rows: {max(known):.2e} (up to {1 - MIN_COSINE:.0e} is good)"
            )
        lines = lines or ["there is no block to check"]
        lines += [f"note: {one}" for one in self.notes]
        lines += [f"checked: {one}" for one in self.checked]
        lines += [f"not checked: {one}" for one in self.not_checked]
        return "\n".join(lines)


def verify(
    store: Store,
    *,
    recompute: int = 0,
    data: Place | None = None,
    networks: Sequence[Path] = (),
    allow_download: bool = False,
) -> Report:
    """Check every vector and status of a store, its labels, splits and groups, and its list of blocks.

    With `recompute`, that many random rows of each block are extracted again from the images in `data`.
    """
    report = Report()
    n_bytes = sum(math.prod(block.shape) * block.dtype.itemsize for block in store.blocks.values())
    with progress_bar(n_bytes, "verifying") as advance, ThreadPoolExecutor(1) as beside:
        for block in store.blocks.values():
            facts, findings = _check_block(store, block, beside, advance)
            report.blocks.append(facts)
            report.findings += findings
    if report.blocks:
        sealed, digests = (sum(one[what] for one in report.blocks) for what in ("sealed", "digests"))
        report.checked.append(
            f"vectors and states of {len(report.blocks)} block(s), {sealed} against a seal, {digests} against a digest "
            "for each row"
        )
    report.checked.append("ids against their digest")
    for path in store.paths:
        _check_meaning(store, path, report)
    _check_splits(store, report)
    for folder in sorted({path.parent for path in store.paths}):
        if set(dumps_of(folder)) <= set(store.paths):
            _check_list(store, folder, report)
    if recompute:
        report.drifts = recompute_rows(store, recompute, data, networks=networks, allow_download=allow_download)
        report.checked.append(f"{len(report.drifts)} vectors against their pictures")
    else:
        report.not_checked.append("that the vectors are of these pictures (--recompute)")
    return report


# ---- blocks ---------------------------------------------------------------------------------------------------------


def _pieces(block: Block) -> Iterator[tuple[slice, NDArray[np.floating]]]:
    n_images, n_views, n_features = block.shape
    step = max(1, _PIECE_BYTES // (n_views * n_features * block.dtype.itemsize))
    buffer = np.empty((min(step, n_images), n_views, n_features), dtype=block.dtype)
    for start in range(0, n_images, step):
        rows = np.arange(start, min(start + step, n_images))
        for view in range(n_views):
            block.gather(rows, buffer[: len(rows), view], view=view)
        yield slice(start, start + len(rows)), buffer[: len(rows)]


def _check_block(
    store: Store, block: Block, beside: Executor, advance: Callable[[int], object]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read each vector of a block once; return facts about the block, and what is wrong, the most telling first."""
    # Copied first: a writer may be at work, and what becomes written later counts as pending here.
    status, stored_seal = np.array(block.status), block.stored_seal
    stored = None if block.digests is None else np.array(block.digests)
    sealing, infinite, changed = seal.Sealing(), np.zeros(status.shape, dtype=bool), np.zeros(status.shape, dtype=bool)
    for rows, vectors in _pieces(block):
        states = status[rows]
        hashing = beside.submit(
            sealing.update, vectors, states
        )  # leaves the interpreter, so it runs beside the digests
        infinite[rows] = (states == Status.WRITTEN) & ~np.isfinite(vectors).all(axis=2)
        if stored is not None:
            known = np.where(states > max(Status), Status.PENDING, states)
            for view in range(states.shape[1]):
                computed = seal.digest_rows(vectors[:, view], known[:, view])
                changed[rows, view] = (computed != stored[rows, view]).any(axis=1)
        hashing.result()
        advance(vectors.nbytes)
    values, counts = np.unique(status, return_counts=True)
    words = [Status(v).reason if v <= max(Status) else f"unknown {v}" for v in values.tolist()]
    sealed, pending = not seal.is_open(stored_seal), status == Status.PENDING
    place = {"path": str(block.path), "block": block.name}
    facts = {
        **place,
        "n_images": block.shape[0],
        "n_views": block.shape[1],
        "status": dict(zip(words, counts.tolist(), strict=True)),
        "sealed": sealed,
        "digests": stored is not None,
    }
    good_seal = not sealed or sealing.seal() == stored_seal
    changed &= ~pending
    problems = {
        "has a status that does not exist": status > max(Status),
        "has values that are not finite in vectors that count as written": infinite,
        "is as it was sealed, but the digests of some of its rows were changed"
        if sealed and good_seal
        else "has vectors, states or digests that were changed after they were written": changed,
        "is sealed, and yet has vectors that are pending": pending & sealed,
    }
    findings = []
    for problem, bad in problems.items():
        if bad.any():
            row, view = (int(n) for n in np.argwhere(bad)[0])
            image = {"rows": int(bad.sum()), "row": row, "view": view, "image_id": store.raw_ids[row].decode()}
            findings.append({**place, "problem": problem, **image})
    problem, n_sealed = "", seal.rows_of(stored_seal)
    if sealed and n_sealed != len(status):
        problem = f"has the seal of {n_sealed:,} rows, and {len(status):,} rows: it is another block's seal"
    elif not good_seal and stored is None:
        problem = "was changed after it was sealed; it keeps no row digests, so nobody can tell in which row"
    elif not good_seal and not changed.any() and not pending.any():
        problem = "does not agree with its seal, though each row agrees with its digest: the seal was changed"
    if problem:
        findings.append({**place, "problem": problem, "rows": 0, "row": None, "view": None, "image_id": None})
    return facts, findings


# ---- labels, splits, groups, list of blocks --------------------------------------------------------------------------


def _check_meaning(store: Store, path: Path, report: Report) -> None:
    """Compare what a dump holds beside its vectors with its digests, and its corpus with that of the store."""
    dump = read_dump(path)
    if dump.corpus and dump.corpus.get("name") != store.corpus.get("name"):
        report.contradictions.append(
            f"{path} was made from the corpus {dump.corpus.get('name')!r}, the store from {store.corpus.get('name')!r}"
        )
    elif dump.corpus and dump.corpus != store.corpus:
        report.notes.append(f"{path}: its corpus was read with other options, or other files lay beside its images")
    has_meaning, since_1_1 = bool(dump.labels or dump.splits), dump.format_version != "1.0"
    meaning = seal.meaning_digest(dump.labels, dump.splits, dump.groups)
    images = seal.images_digest(dump.corpus, dump.content)
    for what, there, stored, computed, lacking in (
        ("labels, splits and groups", has_meaning, dump.meaning_digest, meaning, since_1_1),
        ("corpus and picture digests", since_1_1, dump.images_digest, images, False),
    ):
        if stored and stored != computed:
            report.contradictions.append(
                f"{path}: {what.replace(' and ', ' or ')} do not agree with their digest; they were changed after they "
                "were made"
            )
        elif stored:
            report.checked.append(f"{what} of {path.name} against their digest")
        elif there and computed and lacking:
            report.contradictions.append(
                f"{path}: the digest of its {what} is gone, and every dump of format {dump.format_version} has one"
            )
        elif there and computed:
            report.not_checked.append(
                f"{what} of {path.name}: it keeps no digest of them (`features-store relabel` writes one)"
            )


def _check_splits(store: Store, report: Report) -> None:
    for name, split in store.splits.items():
        rows = split.crossed(store.groups)
        if not rows.any() or store.groups is None:
            continue
        n_groups = len(set(store.groups[rows].tolist()))
        words = f"split {name!r} divides {n_groups:,} groups of {int(rows.sum()):,} images"
        if split.source == "made":
            report.contradictions.append(f"{words}, and splits that were made here keep groups whole: it was changed")
        else:
            source = "was published so" if split.source else "does not record who made it"
            report.notes.append(f"{words}; it {source}, and a score on it counts images that training has seen alike")


def _check_list(store: Store, folder: Path, report: Report) -> None:
    path = folder / LIST_FILE
    try:
        listed = json_object(read_regular(path, _MAX_LIST_BYTES).decode("utf-8"), str(path))
    except FileNotFoundError:
        report.not_checked.append(f"whether blocks are missing from {folder} (--write-list writes them down)")
        return
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8; write it again with `features-store verify --write-list`") from error
    blocks = listed.get("blocks")
    good = isinstance(blocks, dict) and all(isinstance(one, dict) for one in blocks.values())
    if listed.get("format") != _LIST_FORMAT or not isinstance(blocks, dict) or not good:
        raise FormatError(f"{path} is no list of blocks; write it again with `features-store verify --write-list`")
    if listed.get("index_digest") != store.index_digest:
        report.contradictions.append(f"{path} is of a store with other images")
    here = {name: block for name, block in store.blocks.items() if block.path.parent == folder}
    for name, known in sorted(blocks.items()):
        block = here.get(name)
        if block is None:
            report.contradictions.append(f"{folder}: block {name[:120]!r} is in {LIST_FILE}, and its file is gone")
        elif known.get("passport") != block.digest or known.get("seal") not in (None, block.stored_seal.hex()):
            report.contradictions.append(f"{folder}: block {name!r} is another one than {LIST_FILE} names")
        elif known.get("names", _names_digest(block)) != _names_digest(block):
            report.contradictions.append(f"{folder}: the names of the values of block {name!r} were changed")
    new = sorted(here.keys() - blocks.keys())
    if new:
        report.notes.append(f"{folder}: {', '.join(new)} came after {LIST_FILE} was written (--write-list renews it)")
    report.checked.append(f"that the {len(blocks)} block(s) of {path} are there")


def _names_digest(block: Block) -> str | None:
    return None if block.names is None else hashlib.sha256("\0".join(block.names).encode()).hexdigest()


def write_list(store: Store, folder: Path) -> Path:
    """Write the list of the blocks of a folder store; an older list is replaced."""
    if not folder.is_dir():
        raise MismatchError(f"{folder} is no folder; a list of blocks is kept for a store that is one")
    blocks = {}
    for name, block in sorted(store.blocks.items()):
        stored = block.stored_seal.hex() if block.sealed else None
        file = {"file": block.path.name, "passport": block.digest, "seal": stored}
        blocks[name] = {**file, "names": _names_digest(block)}
    values = {"format": _LIST_FORMAT, "version": 1, "index_digest": store.index_digest, "blocks": blocks}
    path = folder / LIST_FILE
    with atomic_write(path, force=True) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return path


# ---- rows extracted again --------------------------------------------------------------------------------------------


def recompute_rows(
    store: Store,
    n: int,
    data: Place | None = None,
    *,
    networks: Sequence[Path] = (),
    allow_download: bool = False,
    rng: np.random.Generator | None = None,
) -> list[dict[str, Any]]:
    """Extract random rows of each block again, and compare."""
    function = _registered()
    rng = rng or np.random.default_rng()
    found: list[dict[str, Any]] = []
    with progress_bar(len(store.blocks), "recomputing", unit="block") as advance:
        for name, block in store.blocks.items():
            written = np.flatnonzero((block.status == Status.WRITTEN).all(axis=1))
            rows = np.sort(rng.choice(written, min(n, len(written)), replace=False))
            ids = [store.raw_ids[row].decode() for row in rows]
            asked = block.passport, ids, store.corpus, data, *([networks] if networks else [])
            allowed = {"allow_download": True} if allow_download else {}
            again = function(*asked, **allowed) if ids else []
            if len(again) != len(ids):
                raise MismatchError(
                    f"{len(ids)} rows of block {name!r} were to be recomputed, and {len(again)} came back"
                )
            stored = np.empty((len(rows), *block.shape[1:]))
            for view in range(block.shape[1]):
                block.gather(rows, stored[:, view], view=view)
            for row, image_id, old, new in zip(rows.tolist(), ids, stored, again, strict=True):
                drift, failure = (
                    (None, new) if isinstance(new, str) else (_drift(old, np.asarray(new, float), name), "")
                )
                facts = {"path": str(block.path), "block": name, "row": row, "image_id": image_id}
                found.append({**facts, "drift": drift, "failure": failure})
            advance(1)
    return found


def _same_vector(drift: Mapping[str, Any]) -> bool:
    """Whether a recomputed vector is the stored one but for rounding."""
    return drift["drift"] is not None and drift["drift"] <= 1 - MIN_COSINE


def _drift_text(one: Mapping[str, Any]) -> str:
    words = one["failure"] if one["drift"] is None else f"cosine drift {one['drift']:.2e}"
    return f"{one['block']} row {one['row']} ({one['image_id']}): {words}"


def _drift(old: NDArray[np.float64], new: NDArray[np.float64], name: str) -> float:
    if new.shape != old.shape or not np.isfinite(new).all():
        raise MismatchError(
            f"block {name!r} was recomputed as {new.shape}, or with values that are not finite; expected {old.shape}"
        )
    norms = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
    both_zero = ~old.any(axis=1) & ~new.any(axis=1)
    cosine = np.where(both_zero, 1.0, (old * new).sum(axis=1) / np.where(norms > 0, norms, 1.0))
    return float(np.clip(1 - cosine, 0, 2).max())


def _registered() -> Recompute:
    absent = "rows can only be recomputed with the networks that made them: pip install 'affectory[extract]'"
    for point in entry_points(group=GROUP):
        try:
            function: Recompute = point.load()
        except ImportError as error:
            raise StoreError(absent) from error
        return function
    raise StoreError(absent)
