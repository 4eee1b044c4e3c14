"""Vectors of images on disk: a shareable, resumable, checkable cache between a GPU and a laptop (see FORMAT.md)."""

from features_store.atomic import open_regular, read_regular
from features_store.dump import open_store
from features_store.errors import (
    AffectoryError,
    DiskSpaceError,
    ExistsError,
    FailedRowsError,
    FormatError,
    LockedError,
    MismatchError,
    StoreError,
    UnknownNameError,
    UnsafeFileError,
)
from features_store.hdf5 import write_index
from features_store.schema import BlockSpec, Index, Labels, Split, Status, Task
from features_store.store import Block, Store
from features_store.writer import BlockWriter

__all__ = [
    "AffectoryError",
    "Block",
    "BlockSpec",
    "BlockWriter",
    "DiskSpaceError",
    "ExistsError",
    "FailedRowsError",
    "FormatError",
    "Index",
    "Labels",
    "LockedError",
    "MismatchError",
    "Split",
    "Status",
    "Store",
    "StoreError",
    "Task",
    "UnknownNameError",
    "UnsafeFileError",
    "open_regular",
    "open_store",
    "read_regular",
    "write_index",
]
