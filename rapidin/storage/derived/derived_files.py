"""Writing files of derived data, in the steps of `segment_writing`, and reading arrays from them.

A file counts as soon as the database names it, in the transaction that follows all of these steps.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rapidin.errors import StoreCorruptError
from rapidin.storage.derived.derived_records import WrittenFile
from rapidin.storage.store_files import file_errors
from rapidin.storage.vectors import VERIFIED_FILES, place_of, segment_writing
from rapidin.support import write_content


def write_arrays(store: Path, folder: str, name: str, arrays: Mapping[str, NDArray[Any]]) -> WrittenFile:
    """Write arrays as the safetensors file `name` in a folder of the store.

    Raises:
        StoreSpaceError: the disk is full.
        StoreError: the file cannot be written.
    """
    content = save({key: np.ascontiguousarray(array) for key, array in arrays.items()})
    segment_writing.check_space(store, 1, len(content))
    _make_folder(store, folder)
    path = segment_writing.temporary_path(store, name, folder)
    with file_errors(path):
        write_content(path, content)
    return _finish(store, folder, name, len(content))


def write_codes(store: Path, folder: str, name: str, index: Any) -> WrittenFile:
    """Write a FAISS index of coded vectors as the file `name` in a folder of the store.

    Raises:
        StoreSpaceError: the disk is full.
        StoreError: the file cannot be written.
    """
    segment_writing.check_space(store, index.ntotal, index.code_size)
    _make_folder(store, folder)
    segment_writing.write_temporary(store, name, index, folder)
    return _finish(store, folder, name, index.ntotal * index.code_size)


def copy_file(source: Path, store: Path, folder: str, name: str) -> WrittenFile:
    """Copy a file of another store or of an export as the file `name` in a folder of the store.

    Raises:
        StoreSpaceError: the disk is full.
        StoreError: the file cannot be read or written.
    """
    with file_errors(source):
        size = source.stat().st_size
    segment_writing.check_space(store, 1, size)
    _make_folder(store, folder)
    path = segment_writing.temporary_path(store, name, folder)
    with file_errors(source), source.open("rb") as content, file_errors(path):
        write_content(path, partial(shutil.copyfileobj, content))
    return _finish(store, folder, name, size)


def read_array(
    store: Path,
    folder: str,
    file: WrittenFile,
    name: str,
    shape: tuple[int, ...],
    dtype: type[np.generic],
    remedy: str,
    recheck: bool = False,
) -> NDArray[Any]:
    """Return an array of a safetensors file whose size, checksum, shape and type are as expected.

    Args:
        store: directory of the store.
        folder: folder of the store that the file lies in.
        file: what the database says about the file.
        name: name of the array in the file.
        shape: shape that the array must have.
        dtype: type of its numbers.
        remedy: what to do if the file is damaged; ends the message.
        recheck: whether to compute the checksum even if this process has done so before.

    Raises:
        StoreCorruptError: the file is missing or is not as it was written.
    """
    path = place_of(store, folder, file.name)
    VERIFIED_FILES.verify(path, file.bytes, file.checksum, remedy, recheck)
    try:
        with file_errors(path), safe_open(path, framework="numpy") as tensors:
            array: NDArray[Any] | None = tensors.get_tensor(name) if name in tensors.keys() else None  # noqa: SIM118
    except SafetensorError as error:
        raise StoreCorruptError(f"{path}: it is no safetensors file ({error}); {remedy}") from error
    if array is None or array.shape != shape or array.dtype != dtype:
        raise StoreCorruptError(f"{path}: it does not hold {name!r} of shape {shape}; {remedy}")
    return array


def is_there(folder: Path, file: WrittenFile) -> bool:
    """Return whether a file is in its folder and has its size; its content is not read."""
    try:
        path = folder / file.name
        return path.is_file() and path.stat().st_size == file.bytes
    except (TypeError, ValueError, OSError):  # a damaged name, or a folder that may not be read
        return False


def _finish(store: Path, folder: str, name: str, least: int) -> WrittenFile:
    """Publish a temporary file under its final name, and sync it; it must have at least `least` bytes.

    Raises:
        StoreSpaceError: the file is shorter.
        StoreError: the disk fails.
    """
    segment_writing.sync_file(store, name, folder)
    segment_writing.publish(store, name, folder)
    segment_writing.sync_directory(store, folder)
    checksum, size = segment_writing.written(store / folder / name, least)
    return WrittenFile(name, size, checksum)


def _make_folder(store: Path, folder: str) -> None:
    path = store / folder
    with file_errors(path):
        if not path.is_dir():
            path.mkdir(exist_ok=True)
            segment_writing.sync_directory(store, "")
