"""Reading everything but the vectors of one dump, checked against FORMAT.md."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features_store import chunked as chunks
from features_store.block import Block
from features_store.errors import FormatError, UnsafeFileError
from features_store.hdf5 import check_file, checked_text, json_object, json_range, json_strings, opened, text_of
from features_store.ids import check_ids, digest_of_ids
from features_store.schema import (
    FORMAT,
    FORMAT_VERSION,
    KINDS,
    LABEL_DTYPES,
    Labels,
    Split,
    Task,
    check_name,
)
from features_store.seal import DIGEST_BYTES, SEAL_BYTES

# What may be read at opening, vectors apart. Data that are not compressed never come near it.
_FREE_BYTES = 16 * 2**20
_MAX_RATIO = 16  # bytes in memory over bytes of the file
_FREE_IMAGES = 100_000  # more than that, and each must take a byte of the file


@dataclass(frozen=True)
class Contents:
    """One dump, as read from its file; vectors and status stay on the disk.

    `raw_ids` is (n_images,) fixed-length UTF-8; `meaning` is the stored digest of labels, splits and groups, if any.
    """

    path: Path
    raw_ids: NDArray[np.bytes_]
    index_digest: str
    corpus: Mapping[str, Any]
    groups: NDArray[np.int64] | None
    content: NDArray[np.uint8] | None
    labels: Mapping[str, Labels]
    splits: Mapping[str, Split]
    blocks: Mapping[str, Block]
    meaning: str = ""


def read_contents(path: Path, *, same_ids: NDArray[np.bytes_] | None = None) -> Contents:
    """Read and check one dump.

    Raises FormatError, UnsafeFileError.
    """
    with opened(path) as file:
        check_file(file, path)
        return _Reading(file, path).contents(same_ids)


class _Reading:
    """The open file of one dump; lives only as long as `read_contents`."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.file = file
        self.path = path
        self.file_bytes = path.stat().st_size
        self.budget = _FREE_BYTES + _MAX_RATIO * self.file_bytes

    def contents(self, same_ids: NDArray[np.bytes_] | None) -> Contents:
        self.version()
        raw_ids = self.ids()
        claimed = text_of(self.file, "index_digest")
        if same_ids is None or raw_ids.dtype != same_ids.dtype or not np.array_equal(raw_ids, same_ids):
            digest = check_ids(raw_ids.tolist())
        else:
            digest = digest_of_ids(same_ids)
        if claimed != digest:
            raise FormatError(
                f"index_digest is {claimed[:80]!r}, but the ids have {digest!r}: the ids or the digest were changed"
            )
        corpus = json_object(text_of(self.file, "corpus"), "corpus") if "corpus" in self.file.attrs else {}
        n_images = len(raw_ids)
        return Contents(
            path=self.path,
            raw_ids=raw_ids,
            index_digest=digest,
            corpus=corpus,
            groups=self.column("images/group", "<i8", (n_images,)) if "images/group" in self.file else None,
            content=self.column("images/content", "|u1", (n_images, 32)) if "images/content" in self.file else None,
            labels={name: self.labels(name, n_images) for name in self.names("labels", h5py.Dataset)},
            splits={name: self.split(name, n_images) for name in self.names("splits", h5py.Dataset)},
            blocks={name: self.block(name, n_images) for name in self.names("blocks", h5py.Group)},
            meaning=text_of(self.file, "meaning_digest") if "meaning_digest" in self.file.attrs else "",
        )

    def version(self) -> None:
        if "format" not in self.file.attrs or text_of(self.file, "format") != FORMAT:
            raise FormatError(
                f"{self.path} is an HDF5 file, but no feature dump: its attribute 'format' is not {FORMAT!r}"
            )
        version = text_of(self.file, "format_version")
        major, _, minor = version.partition(".")
        if not (major.isdecimal() and minor.isdecimal() and len(version) <= 20 and version.isascii()):
            raise FormatError(f"format_version is {version[:80]!r}; expected two numbers, such as {FORMAT_VERSION!r}")
        if major != FORMAT_VERSION.partition(".")[0]:
            raise FormatError(
                f"format_version is {version}, and this software reads 1.x; install a newer release of it"
            )

    def ids(self) -> NDArray[np.bytes_]:
        dataset = self.dataset("images/id")
        if dataset.dtype.kind != "S" or dataset.ndim != 1 or not dataset.shape[0]:
            raise FormatError(
                f"/images/id is {dataset.dtype} of shape {dataset.shape}; expected one row of fixed-length text"
            )
        if dataset.shape[0] > max(_FREE_IMAGES, self.file_bytes):
            raise UnsafeFileError(
                f"{self.path} was refused: /images/id claims {dataset.shape[0]} images in {self.file_bytes} bytes"
            )
        return self.values(dataset)

    def values(self, dataset: h5py.Dataset) -> NDArray[Any]:
        self.spend(dataset)
        return chunks.read(dataset)

    def spend(self, dataset: h5py.Dataset) -> None:
        """Take the size of a dataset off what may still be read; compressed data can claim any size."""
        self.budget -= dataset.nbytes
        if self.budget < 0:
            raise UnsafeFileError(
                f"{self.path} was refused: {dataset.name} would fill {dataset.nbytes} bytes of memory from a small file"
            )

    def dataset(self, path: str) -> h5py.Dataset:
        item = self.file.get(path)
        if not isinstance(item, h5py.Dataset):
            raise FormatError(f"there is no dataset /{path}")
        return item

    def column(self, path: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        return self.values(self.typed(path, (dtype,), shape))

    def typed(self, path: str, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> h5py.Dataset:
        """Return a dataset if its bytes are just what numpy means by one of the types."""
        dataset = self.dataset(path)
        # Not h5py's dtype: that is only the nearest one, and the bytes are read without a conversion.
        exact = any(dataset.id.get_type().equal(h5py.h5t.py_create(np.dtype(dtype))) for dtype in dtypes)
        if not exact or dataset.shape != shape:
            words = f"{dataset.dtype.str} of shape {dataset.shape}"
            if dataset.shape == shape and dataset.dtype.str in dtypes:
                words = f"an unusual {words}"
            raise FormatError(f"/{path} is {words}; expected {' or '.join(dtypes)} of shape {shape}")
        return dataset

    def names(self, group: str, kind: type) -> list[str]:
        """Name the members of a top-level group; a member of another kind is unknown, and ignored."""
        if group not in self.file:
            return []
        found = self.file[group]
        if not isinstance(found, h5py.Group):
            raise FormatError(f"/{group} is not a group")
        return [check_name(group, name) for name, item in found.items() if isinstance(item, kind)]

    def labels(self, name: str, n_images: int) -> Labels:
        dataset = self.dataset(f"labels/{name}")
        kind = text_of(dataset, "kind")
        if kind not in KINDS:
            raise FormatError(f"/labels/{name} has kind {kind!r}; valid: {', '.join(KINDS)}")
        classes = json_strings(text_of(dataset, "classes"), f"/labels/{name} classes")
        ends = None
        if kind == "regression":
            ends = json_range(text_of(dataset, "range"), f"/labels/{name} range")
        source = text_of(dataset, "source") if "source" in dataset.attrs else ""
        task = Task(name, kind, classes, ends, source)
        shape = (n_images,) if kind == "single" else (n_images, len(classes))
        return Labels(task, self.column(f"labels/{name}", LABEL_DTYPES[kind], shape))

    def split(self, name: str, n_images: int) -> Split:
        dataset = self.dataset(f"splits/{name}")
        kind: Any = text_of(dataset, "kind")
        source = text_of(dataset, "source") if "source" in dataset.attrs else ""
        return Split(name, self.column(f"splits/{name}", "|i1", (n_images,)), kind, source)

    def block(self, name: str, n_images: int) -> Block:
        where = f"blocks/{name}"
        vectors = self.dataset(f"{where}/vectors")
        if vectors.ndim != 3 or vectors.shape[0] != n_images or min(vectors.shape) < 1:
            raise FormatError(f"/{where}/vectors has shape {vectors.shape}; expected ({n_images}, n_views, n_features)")
        shapes = {"status": vectors.shape[:2], "seal": (SEAL_BYTES,)}
        if f"{where}/digests" in self.file:
            shapes["digests"] = (*vectors.shape[:2], DIGEST_BYTES)
        parts = {"vectors": self.typed(f"{where}/vectors", ("<f2", "<f4"), vectors.shape)}
        for part, shape in shapes.items():
            parts[part] = self.typed(f"{where}/{part}", ("|u1",), shape)
            self.spend(parts[part])
        offsets = self.offsets(parts)
        passport = json_object(text_of(self.file[where], "passport"), f"/{where} passport")
        return Block(
            name=name,
            path=self.path,
            shape=vectors.shape,
            item_shape=self.item_shape(vectors, where),
            dtype=np.dtype(vectors.dtype.str),
            passport=passport,
            names=self.feature_names(where, vectors.shape[2]),
            offsets=offsets,
            has_digests="digests" in parts,
        )

    def offsets(self, parts: Mapping[str, h5py.Dataset]) -> Mapping[str, int] | None:
        """Return where the parts lie in the file, or None if they can only be read through HDF5."""
        found: dict[str, int] = {}
        size = self.path.stat().st_size
        for part, dataset in parts.items():
            offset = dataset.id.get_offset()
            if offset is None:
                return None
            if offset + dataset.nbytes > size:
                raise FormatError(f"{dataset.name} ends behind the end of the file, which was cut short")
            found[part] = offset
        ranges = sorted((offset, offset + parts[part].nbytes) for part, offset in found.items())
        if any(end > start for (_, end), (start, _) in itertools.pairwise(ranges)):
            raise FormatError(f"{next(iter(parts.values())).parent.name} has parts that overlap in the file")
        return found

    def item_shape(self, vectors: h5py.Dataset, where: str) -> tuple[int, ...]:
        stored = np.atleast_1d(np.asarray(vectors.attrs.get("shape", [])))
        good = stored.dtype.kind in "iu" and stored.ndim == 1 and 1 <= stored.size <= 4
        shape = tuple(int(n) for n in stored) if good else ()
        product = 1
        for n in shape:
            product *= n
        if not shape or min(shape) < 1 or product != vectors.shape[2]:
            raise FormatError(
                f"/{where}/vectors has attribute shape {stored.tolist()!r}; its product must be {vectors.shape[2]}"
            )
        return shape

    def feature_names(self, where: str, n_features: int) -> tuple[str, ...] | None:
        if f"{where}/names" not in self.file:
            return None
        dataset = self.dataset(f"{where}/names")
        if dataset.dtype.kind != "S" or dataset.shape != (n_features,):
            raise FormatError(
                f"/{where}/names is {dataset.dtype} of shape {dataset.shape}; expected text of shape ({n_features},)"
            )
        return tuple(checked_text(raw, f"/{where}/names") for raw in self.values(dataset).tolist())
