"""Reading an export that may come from anywhere: everything in it is checked before it is used.

n samples · m of a batch · K numbers in a vector.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from rapidin.errors import RapidinError, SettingError, StoreCorruptError, StoreError, StoreFormatError
from rapidin.storage.catalog import NewSample, spans_of
from rapidin.storage.derived import CURVATURE, DerivedRecord, StoreFacts, Travelling, WrittenFile
from rapidin.storage.store_files import file_errors
from rapidin.storage.transfer.export_format import (
    MANIFEST_NAME,
    SAMPLES_NAME,
    SCHEMA,
    SPANS,
    TENSOR_NAME,
    VERSION,
    Manifest,
    VectorFile,
)
from rapidin.storage.vectors import codec_named

logger = logging.getLogger(__name__)

MANIFEST_BYTES = 2**28
"""Maximum number of bytes of a manifest; the names of a large model's tensors take a megabyte."""
_ADVICE = "export it again"
_BATCH_ROWS = 256
_BATCH_CHARACTERS = 2**26
"""Number of characters of texts after which samples are handed on, although vectors would leave room for more."""
_LONGEST_TEXT = 2**26
"""Maximum number of characters of a text; no model reads as many."""
_LARGEST_COLUMN = 2**28
_MOST_SHRUNK = 200
"""A column of a row group may not become larger than the former, or must be no more than the latter times as large
as on disk: a file of a few kilobytes must not fill the memory."""


class Exported:
    """An export whose manifest was read, and whose files have the kinds and shapes that the manifest says.

    Attributes:
        manifest: contents of ``store.json``.
        samples_path: path of the file of samples.
        curvature: curvature of the store that was exported; None if there is none that this rapidin can use.
    """

    def __init__(self, directory: Path) -> None:
        """Read the manifest of the export in `directory`; samples and vectors are read later.

        Raises:
            StoreFormatError: the directory is not an export, or a newer rapidin wrote it.
            StoreError: a file is missing, unknown, damaged, or has the wrong kind or shape.
        """
        self.samples_path = directory / SAMPLES_NAME
        self._directory = directory
        self.manifest = _manifest(directory)
        self._dimension = self.manifest.settings.projection.dimension
        self._check_names()
        self._starts = np.cumsum([0, *(file.rows for file in self.manifest.files)])
        if self._starts[-1] != self.manifest.samples:
            raise StoreError(
                f"{directory / MANIFEST_NAME}: its files have {self._starts[-1]} vectors for "
                f"{self.manifest.samples} samples; {_ADVICE}"
            )
        for file in self.manifest.files:
            with self._opened(file):
                pass
        self._check_columns()
        self.curvature = self._curvature()

    def batches(self, rows: int) -> Iterator[list[NewSample]]:
        """Yield the samples in order, `rows` at a time.

        Raises:
            StoreError: a value is not possible; the message names the row, counted from 1.
        """
        path, gathered, row, characters = self.samples_path, list[NewSample](), 0, 0
        with _errors(path), pa.parquet.ParquetFile(path) as table:
            _check_sizes(path, table.metadata)
            known = [name for name in SCHEMA.names if name in table.schema_arrow.names]
            most = max(_LARGEST_COLUMN, _MOST_SHRUNK * path.stat().st_size)
        texts = [name for name in known if pa.types.is_string(SCHEMA.field(name).type)]
        # A text that many rows share stays one text until a row asks for it.
        with _errors(path), pa.parquet.ParquetFile(path, read_dictionary=texts, pre_buffer=False) as table:
            for batch in table.iter_batches(batch_size=min(rows, _BATCH_ROWS), columns=known):
                for number in range(len(batch)):
                    row += 1
                    values = {name: batch.column(name)[number].as_py() for name in known}
                    gathered.append(_sample({SPANS.name: None} | values, f"{path}, row {row}"))
                    characters += sum(len(value) for value in values.values() if isinstance(value, str))
                    if len(gathered) == rows or characters > _BATCH_CHARACTERS:
                        yield gathered
                        most -= characters
                        gathered, characters = [], 0
                    if most < characters:
                        raise StoreError(
                            f"{path}: its texts unpack to far more than the file holds, as in no export; {_ADVICE}"
                        )
        if gathered:
            yield gathered

    def vectors(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the vectors from number `start` to before `stop`, [m, K].

        Raises:
            StoreError: a file can no longer be read.
        """
        parts = [np.empty((0, self._dimension), np.float32)]
        for first, file in zip(self._starts, self.manifest.files, strict=False):
            low, high = max(start, first) - first, min(stop, first + file.rows) - first
            if low < high:
                with self._opened(file) as rows:
                    parts.append(np.array(rows[int(low) : int(high)], np.float32))
        return np.concatenate(parts)

    @contextmanager
    def _opened(self, file: VectorFile) -> Iterator[Any]:
        """Open a file whose vectors can be sliced, and check its kind and shape."""
        path, shape = self._directory / file.name, (file.rows, self._dimension)
        with _errors(path):
            if path.suffix == ".npy":
                # This never unpickles, because a file with Python objects cannot be mapped.
                rows = np.lib.format.open_memmap(path, mode="r")
                _check_shape(path, str(rows.dtype), rows.shape, ("float32", shape))
                yield rows
                return
            with safe_open(path, framework="numpy") as tensors:
                if list(tensors.keys()) != [TENSOR_NAME]:
                    raise StoreError(f"{path}: it must hold one tensor, {TENSOR_NAME!r}; {_ADVICE}")
                rows = tensors.get_slice(TENSOR_NAME)
                _check_shape(path, rows.get_dtype(), tuple(rows.get_shape()), ("F32", shape))
                yield rows

    def _check_names(self) -> None:
        names = [file.name for file in self.manifest.files]
        known = {MANIFEST_NAME, SAMPLES_NAME, *names}
        folder = self._directory / CURVATURE.folder
        if len(known) < len(names) + 2:
            raise StoreError(f"{self._directory / MANIFEST_NAME}: it names a file twice; {_ADVICE}")
        with file_errors(self._directory):
            # Hidden files such as .DS_Store belong to the system and are ignored.
            found = {path.name: path for path in self._directory.iterdir() if not path.name.startswith(".")}
            if self.manifest.curvature is not None and folder.is_dir() and not folder.is_symlink():
                del found[folder.name]
        for name in sorted(known | found.keys()):
            if name not in known:
                raise StoreError(f"{found[name]}: an export has no such file; remove it")
            if name not in found or found[name].is_symlink() or not found[name].is_file():
                raise StoreError(f"{self._directory / name}: the file is missing or not a regular file; {_ADVICE}")

    def _curvature(self) -> Travelling | None:
        """Check the file of the curvature, and return what a store takes of it."""
        given, settings = self.manifest.curvature, self.manifest.settings
        if given is None:
            return None
        path = self._directory / CURVATURE.folder / given.name
        if path.is_symlink():
            raise StoreError(f"{path}: the file is not a regular file; {_ADVICE}")
        with file_errors(path.parent):
            others = sorted(one.name for one in path.parent.glob("[!.]*") if one.name != given.name)
        if others:
            raise StoreError(f"{path.parent / others[0]}: an export has no such file; remove it")
        file = WrittenFile(given.name, given.bytes, given.checksum)
        codec, dimension = codec_named(settings.codec.name), settings.projection.dimension
        facts = StoreFacts(self._directory, codec, dimension, {}, settings.probe_shape)
        try:
            CURVATURE.check(facts, DerivedRecord(CURVATURE.name, given.parameters, "", file, ""))
        except StoreFormatError as error:
            logger.warning("%s", error)
            return None
        except StoreCorruptError as error:
            raise StoreError(f"{path}: the curvature of the export cannot be read; {_ADVICE}") from error
        return Travelling(CURVATURE.name, given.parameters, path, file)

    def _check_columns(self) -> None:
        path = self.samples_path
        with _errors(path), pa.parquet.ParquetFile(path) as table:
            found, rows = table.schema_arrow, table.metadata.num_rows
        for field in SCHEMA:
            if field == SPANS and (
                SPANS.name not in found.names or pa.types.is_null(found.field(SPANS.name).type)
            ):
                continue  # another program wrote it, and no sample is a chat
            if found.get_all_field_indices(field.name) == [] or not _alike(
                found.field(field.name).type, field.type
            ):
                kind = found.field(field.name).type if field.name in found.names else "missing"
                raise StoreError(f"{path}: its column {field.name!r} is {kind}, not {field.type}; {_ADVICE}")
        if rows != self.manifest.samples:
            raise StoreError(f"{path}: it has {rows} rows for {self.manifest.samples} samples; {_ADVICE}")


def _manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST_NAME
    with file_errors(path):
        if not path.is_file():
            raise StoreFormatError(f"{directory}: there is no {MANIFEST_NAME}, so it is not an export of a store")
        if path.stat().st_size > MANIFEST_BYTES:
            raise StoreFormatError(f"{path}: it is too large for an export's; give the directory of an export")
        content = path.read_bytes()
    try:
        plain = json.loads(content)
        version = plain.get("version") if isinstance(plain, dict) else None
        if isinstance(version, int) and version > VERSION:
            raise StoreFormatError(
                f"{path}: the export has version {version}, this rapidin knows {VERSION}; upgrade rapidin"
            )
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise StoreFormatError(f"{path}: {place or 'it'} cannot be used: {first['msg']}; {_ADVICE}") from error
    except (ValueError, RecursionError, SettingError) as error:
        raise StoreFormatError(f"{path}: it is not the JSON of an export ({error}); {_ADVICE}") from error


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn the libraries' errors about a damaged file into a `StoreError` that names it."""
    with file_errors(path):
        try:
            yield
        except RapidinError:
            raise
        except MemoryError as error:
            raise StoreError(f"{path}: there is not enough memory to read it; free some, or {_ADVICE}") from error
        except (pa.ArrowException, SafetensorError, ValueError, KeyError, TypeError, EOFError) as error:
            reason = " ".join(str(error).split())
            raise StoreError(f"{path}: it cannot be read ({reason[:300]}); {_ADVICE}") from error


def _check_sizes(path: Path, metadata: Any) -> None:
    """Check that no column takes far more memory than its size on disk suggests.

    Raises:
        StoreError: one does.
    """
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            size, stored = column.total_uncompressed_size, max(1, column.total_compressed_size)
            if size > _LARGEST_COLUMN and size > _MOST_SHRUNK * stored:
                raise StoreError(
                    f"{path}: its column {column.path_in_schema!r} has {stored:,} bytes that unpack to {size:,}, "
                    f"which no export does; {_ADVICE}"
                )


def _check_shape(path: Path, kind: str, shape: tuple[int, ...], expected: tuple[str, tuple[int, int]]) -> None:
    if (kind, shape) != expected:
        raise StoreError(
            f"{path}: it holds {kind} of shape {shape}, not {expected[0]} of {expected[1]}; {_ADVICE}"
        )


def _alike(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Tell whether two types have the same kind of values; programs write texts and integers in several sizes."""
    types = pa.types
    if types.is_string(wanted):
        return bool(types.is_string(found) or types.is_large_string(found) or types.is_string_view(found))
    same_kind = types.is_integer if types.is_integer(wanted) else types.is_boolean
    return bool(same_kind(found))


def _sample(values: dict[str, Any], place: str) -> NewSample:
    for name, value in values.items():
        if value is None and name != SPANS.name:
            raise StoreError(f"{place}: its {name} is null; {_ADVICE}")
        if isinstance(value, int) and not 0 <= value < 2**63:
            problem = "less than 0" if value < 0 else "more than a store can hold"
            raise StoreError(f"{place}: its {name} is {value}, {problem}; {_ADVICE}")
        if isinstance(value, str) and len(value) > _LONGEST_TEXT:
            raise StoreError(f"{place}: its {name} has {len(value):,} characters, which no model reads; {_ADVICE}")
    try:
        metadata = json.loads(values["metadata"])
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{place}: its metadata is not JSON ({error}); {_ADVICE}") from error
    if not isinstance(metadata, dict):
        raise StoreError(f"{place}: its metadata is not a JSON object;  {_ADVICE}")
    try:
        spans = spans_of(values[SPANS.name])
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{place}: its {SPANS.name} cannot be used ({error}); {_ADVICE}") from error
    if spans and spans[-1][1] > len(values["prompt"]) + len(values["response"]):
        raise StoreError(f"{place}: its {SPANS.name} go beyond the end of its text; {_ADVICE}")
    return NewSample(**(values | {"metadata": metadata, SPANS.name: spans}))
