"""Every error that rapidin raises on purpose, in one tree.

RapidinError
 ├── DependencyError            a package that the request needs is not installed
 ├── SettingError               a value given by the user cannot be used (exit code 2)
 │    └── FilterError           a --where expression that cannot be read
 ├── DataError                  something is wrong with a data file
 │    ├── DataFileError         a file as a whole is missing, empty, unreadable or of an unknown kind
 │    └── RowError              one row of a file cannot be used; carries file, row and id
 ├── ModelError                 the model, adapter or tokenizer cannot be loaded or used
 │    └── FingerprintMismatchError   the store was built with another model
 ├── GradientError              a gradient is zero, not finite or does not fit in memory
 ├── ClosedError                an object is used after, or while, it is closed
 ├── ComputationError           a worker process or a device failed while it computed gradients
 └── StoreError                 something is wrong with a store
      ├── StoreNotFoundError    there is no store at that path
      ├── StoreFormatError      the path holds a store of a newer rapidin, or no store at all
      ├── StoreLockedError      another process is writing to it
      ├── StoreCorruptError     a file is missing, truncated or altered
      ├── StoreMismatchError    the request contradicts what the store was created with
      ├── StoreSpaceError       the disk is full, or would be
      ├── StoreEmptyError       the store holds no samples, and the request needs some
      ├── DerivedNotFoundError  the store has no derived data of that kind
      │    └── IndexNotFoundError    the store has no such index
      └── SampleNotFoundError   no live sample has that id

A message is one line. It names the file, row or id, and says what is wrong and what to do about it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rapidin.support import shortened

_LONGEST_ID = 100
"""Maximum number of characters of an id in a message; a longer id is shortened, so that the rest can be read."""


class RapidinError(Exception):
    """Base of all errors that rapidin raises on purpose."""


class DependencyError(RapidinError):
    """A package that the request needs is not installed."""


class SettingError(RapidinError):
    """A value given by the user cannot be used; the command line exits with 2."""


class FilterError(SettingError):
    """A ``--where`` expression cannot be read or names an unknown field."""


class DataError(RapidinError):
    """Something is wrong with a data file."""


class DataFileError(DataError):
    """A data file is missing, empty, unreadable or of an unknown kind."""


class RowError(DataError):
    """One row of a data file cannot become a training sample.

    Attributes:
        file: the data file, as the user named it; empty for a query that came from no file.
        row: number of the row in its file, counted from 1; 0 for a query that came from no file.
        id: the sample's id; None if the row has none.
        reason: what is wrong and what to do, without file, row and id.
    """

    def __init__(self, file: str | Path, row: int, reason: str, id: str | None = None) -> None:
        self.file = str(file)
        self.row = row
        self.id = id
        self.reason = reason
        name = f" (id {shortened(id, _LONGEST_ID)!r})" if id is not None else ""
        super().__init__(f"{self.file}, row {row}{name}: {reason}" if self.file else f"the query: {reason}")


class ModelError(RapidinError):
    """A model, adapter or tokenizer cannot be loaded or used."""


class FingerprintMismatchError(ModelError):
    """The model is not the one that the store was built with."""


class GradientError(RapidinError):
    """A gradient cannot be used: it is zero, not finite or does not fit in memory, or the model fails.

    Args:
        id: the id of the sample or query whose gradient it is.
        reason: what is wrong, without the id.
        kind: word for it in the message, ``sample`` or ``query``.

    Attributes:
        id: the id of the sample or query.
        reason: what is wrong, without the id.
    """

    def __init__(self, id: str, reason: str, kind: Literal["sample", "query"] = "sample") -> None:
        self.id = id
        self.reason = reason
        super().__init__(f"{kind} {shortened(id, _LONGEST_ID)!r}: {reason}")


class ClosedError(RapidinError):
    """An object is used after, or while, it is closed."""


class ComputationError(RapidinError):
    """A worker process or a device failed while it computed gradients."""


class StoreError(RapidinError):
    """Something is wrong with a store."""


class StoreNotFoundError(StoreError):
    """There is no store at the given path."""


class StoreFormatError(StoreError):
    """The store was written by a newer rapidin, or the path is not a store."""


class StoreLockedError(StoreError):
    """Another process is writing to the store."""


class StoreCorruptError(StoreError):
    """A file of the store is missing, truncated or altered."""


class StoreMismatchError(StoreError):
    """The request contradicts what the store was created with."""


class StoreSpaceError(StoreError):
    """The disk is full, or would become full before the work is done."""


class StoreEmptyError(StoreError):
    """The store holds no samples, and the request needs some."""


class DerivedNotFoundError(StoreError):
    """The store has no derived data of the kind that was asked for."""


class IndexNotFoundError(DerivedNotFoundError):
    """The store has no index of the kind that was asked for."""


class SampleNotFoundError(StoreError):
    """No live sample of the store has that id."""
