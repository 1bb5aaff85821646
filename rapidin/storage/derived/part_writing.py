"""Writing an index's files, in the steps of `segments`.

A file counts once the database names it, in the transaction that follows all of these steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from rapidin.storage.derived.derived_rows import WrittenFile
from rapidin.storage.store_files import INDEXES_NAME, file_errors
from rapidin.storage.vectors import segment_writing


def write_arrays(store: Path, name: str, arrays: Mapping[str, NDArray[Any]]) -> WrittenFile:
    """Write arrays as the safetensors file `name`.

    Raises:
        StoreSpaceError: the disk is full.
        StoreError: the file cannot be written.
    """
    content = save({key: np.ascontiguousarray(array) for key, array in arrays.items()})
    segment_writing.check_space(store, 1, len(content))
    _make_folder(store)
    path = segment_writing.temporary_path(store, name, INDEXES_NAME)
    with file_errors(path):
        path.write_bytes(content)
    return finish(store, name, len(content))


def write_codes(store: Path, name: str, index: Any) -> WrittenFile:
    """Write a FAISS index of coded vectors as the file `name`.

    Raises:
        StoreSpaceError: the disk is full.
        StoreError: the file cannot be written.
    """
    segment_writing.check_space(store, index.ntotal, index.code_size)
    _make_folder(store)
    segment_writing.write_temporary(store, name, index, INDEXES_NAME)
    return finish(store, name, index.ntotal * index.code_size)


def finish(store: Path, name: str, least: int) -> WrittenFile:
    """Have a temporary file on disk under its final name; what the disk then holds, at least `least` bytes.

    Raises:
        StoreSpaceError: the file is shorter.
        StoreError: the disk fails.
    """
    segment_writing.sync_file(store, name, INDEXES_NAME)
    segment_writing.publish(store, name, INDEXES_NAME)
    segment_writing.sync_directory(store, INDEXES_NAME)
    checksum, size = segment_writing.written(store / INDEXES_NAME / name, least)
    return WrittenFile(name, size, checksum)


def _make_folder(store: Path) -> None:
    folder = store / INDEXES_NAME
    with file_errors(folder):
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            segment_writing.sync_directory(store, "")
