"""The spool: a temporary file that holds an ingest's new samples, encoded, until they are computed.

Planning reads and tokenises every row, and writes each new sample to the spool. The blocks of work are read from
the spool. So no row is read or tokenised twice, and the texts take no memory: the spool keeps twelve bytes of
memory per sample.

The record of a sample is a line of ASCII JSON (the sample as it will be stored), then its token ids (int32), then
one byte per token that says whether the token is a target.
"""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, Self

from rapidin.storage import NewSample, file_errors

_FIELDS = tuple(field.name for field in fields(NewSample))
_BUFFER_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class PlannedSample:
    """A sample whose gradient is to be computed; the engine takes it as a `NamedSample`.

    Attributes:
        sample: the sample as it will be stored.
        ids: token ids [t].
        targets: whether each token is a target [t].
        replaces: whether the sample takes the place of a stored one with the same id.
    """

    sample: NewSample
    ids: tuple[int, ...]
    targets: tuple[bool, ...]
    replaces: bool

    @property
    def id(self) -> str:
        """Id of the sample."""
        return self.sample.id


class SampleSpool:
    """Planned samples in a file without a name; use it in a ``with`` statement, whose end removes the file.

    Because the file has no name, it is also removed if the process is killed.

    Args:
        directory: existing directory on whose disk the samples are kept; None to count samples without keeping
            them, for a dry run.

    Raises:
        StoreError: the directory cannot be written to.

    Attributes:
        lengths: number of tokens of each sample, in the order in which the samples were added.
        bytes: size of all records in bytes.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._ends = array("q")
        self.lengths = array("i")
        self.bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, which frees its disk space; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.lengths)

    def add(self, planned: PlannedSample) -> None:
        """Append one sample.

        Raises:
            StoreSpaceError: the disk is full.
            StoreError: the file cannot be written for another reason.
        """
        values = {name: getattr(planned.sample, name) for name in _FIELDS}
        line = json.dumps([values, planned.replaces]).encode("ascii")
        record = b"".join((line, b"\n", array("i", planned.ids).tobytes(), bytes(planned.targets)))
        if self._directory is not None:
            with file_errors(self._directory):
                self._open().write(record)
        self.bytes += len(record)
        self._ends.append(self.bytes)
        self.lengths.append(len(planned.ids))

    def finish(self) -> None:
        """Write buffered records to the file, so that the disk's free space is known.

        Raises:
            StoreSpaceError: the disk is full.
            StoreError: the file cannot be written for another reason.
        """
        if self._file is not None and self._directory is not None:
            with file_errors(self._directory):
                self._file.flush()

    def read(self, positions: Sequence[int]) -> tuple[PlannedSample, ...]:
        """Return the samples at some positions, in the order of `positions`; `finish` must be called before.

        Raises:
            StoreError: the disk failed.
        """
        if self._file is None or self._directory is None:
            raise RuntimeError("this spool keeps no samples")
        with file_errors(self._directory):
            return tuple(self._read(self._file.fileno(), position) for position in positions)

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=_BUFFER_BYTES)  # noqa: SIM115
        return self._file

    def _read(self, descriptor: int, position: int) -> PlannedSample:
        begin = self._ends[position - 1] if position else 0
        size = self._ends[position] - begin
        record = os.pread(descriptor, size, begin)
        if len(record) != size:
            raise OSError(None, "a temporary file became shorter")
        length = self.lengths[position]
        line_end = size - length * (array("i").itemsize + 1)
        values, replaces = json.loads(record[:line_end])
        ids = array("i", record[line_end : size - length])
        return PlannedSample(_sample(values), tuple(ids), tuple(map(bool, record[size - length :])), replaces)


def _sample(values: dict[str, Any]) -> NewSample:
    spans = tuple((first, end) for first, end in values["target_spans"])
    return NewSample(**{**values, "target_spans": spans})
