"""Digests of what searches and filters read of all samples, so that a damaged part of it is noticed.

A search checks the row of each hit by the row's own checksum. It cannot check the rows that an altered index or an
altered value keeps it from finding. So the table ``digests`` holds sums of the hashes of everything that searches
and filters read. A sum does not depend on an order, so a commit only adds what is new and takes off what is gone.
Before a state of the store is used for the first time, the sums of what is about to be read are compared.

=============  ===========================================================  ===========================
``places``     key, segment, position and scale of live samples             read by every search
``ids``        key and id of live samples                                   filters on ``id``
``columns``    the other numbers, the file and segment of live samples      filters on them
``texts``      prompt, response and metadata of live samples                filters on long texts
``field N``    values of metadata field N in `SampleMetadataRow`            filters on the field
=============  ===========================================================  ===========================
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import xxhash
from numpy.typing import NDArray
from sqlalchemy import CursorResult, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool

from rapidin.errors import StoreCorruptError
from rapidin.storage.catalog.schema import (
    LIVE_INDEX,
    SEARCH_INDEX,
    VALUE_INDEX,
    MetadataFieldRow,
)

PLACES, IDS, COLUMNS, TEXTS = "places", "ids", "columns", "texts"
_WRAP = 2**64
_MOST_KEPT = 10_000
_PLACES = "key, segment_id, position, scale"
_LIVE = {
    IDS: "rapidin_digest(s.key, s.sample_id)",
    COLUMNS: 'rapidin_digest(s.key, s.segment_id, s."row", s.tokens, s.targets, s.truncated, s.file)',
    TEXTS: "rapidin_digest(s.key, s.prompt, s.response, s.metadata)",
}
_METADATA = "rapidin_digest(sample_key, kind, number, text)"
_checked: WeakKeyDictionary[Pool, set[tuple[int, str]]] = WeakKeyDictionary()


def _make_encoder() -> Callable[[Sequence[Any]], str]:
    """Return a function that writes a row as compact JSON.

    `json.JSONEncoder.encode` makes a new encoder in C for each row, which takes twice as long as the row itself.
    """
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
    encode = make(None, None, json.encoder.encode_basestring, None, ":", ",", False, False, True)
    return lambda row: "".join(encode(row, 0))


_encode = _make_encoder()


def of_field(field_id: int) -> str:
    """Return the name of the digest of a metadata field."""
    return f"field {field_id}"


class RowsDigest:
    """Aggregate function of SQL: the sum of the hashes of all rows, as a signed integer of 64 bits."""

    def __init__(self) -> None:
        self._sum = 0

    def step(self, *values: Any) -> None:
        """Add a row."""
        self._sum += int(xxhash.xxh3_64_intdigest(_encode(values).encode()))

    def finalize(self) -> int:
        """Return the sum."""
        return _signed(self._sum)


def places_digest(numbers: NDArray[np.float64]) -> int:
    """Return the digest of key, segment, position and scale of samples, [n, 4].

    It is computed with NumPy, because every search needs it. The mixing is that of SplitMix64 (Steele, Lea and
    Flood 2014, https://doi.org/10.1145/2714064.2660195).
    """
    bits = np.ascontiguousarray(numbers + 0.0).view(np.uint64)
    mixed = np.zeros(len(bits), np.uint64)
    for column in bits.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return _signed(int(mixed.sum(dtype=np.uint64)))


@contextmanager
def followed(session: Session, condition: str, values: Sequence[Any], *, metadata: bool = True) -> Iterator[None]:
    """Have the digests follow what the body changes of the samples that meet a condition.

    Args:
        session: session to write with.
        condition: condition in SQL on the table of samples that also holds for the changed samples afterwards.
        values: values of its parameters.
        metadata: whether the body changes `SampleMetadataRow`.
    """
    before = _sums(session, condition, values, metadata)
    yield
    change = _sums(session, condition, values, metadata)
    change.subtract(before)
    _add(session, change)


def add(session: Session, first_key: int) -> None:
    """Add the new samples from a key on to the digests."""
    _add(session, _sums(session, "key >= ?", (first_key,), True))


def one_of(column: str, values: Sequence[Any]) -> str:
    """Return the condition that a column has one of the values, for `followed`."""
    return f"{column} IN ({', '.join('?' * len(values))})"


def check(session: Session, names: Iterable[str]) -> None:
    """Check that what the digests of some names cover is as it was written, once for each state of the store.

    Raises:
        StoreCorruptError: something differs.
    """
    number = session.connection().exec_driver_sql("PRAGMA user_version").scalar_one()
    kept = _checked.setdefault(session.connection().engine.pool, set())
    for name in names:
        if (number, name) in kept:
            continue
        if any(found != _recorded(session, name) for found in _read(session, name)):
            raise damaged(session, name)
        if len(kept) > _MOST_KEPT:
            kept.clear()
        kept.add((number, name))


def check_places(session: Session, numbers: NDArray[np.float64]) -> None:
    """Check key, segment, position and scale of all live samples, [n, 4], as an index gave them.

    Raises:
        StoreCorruptError: something differs.
    """
    if places_digest(numbers) != _recorded(session, PLACES):
        raise damaged(session, PLACES)


def damaged(session: Session, name: str) -> StoreCorruptError:
    """Return the error about what the digest `name` covers."""
    what = {PLACES: "the places of vectors", IDS: "the index of ids", COLUMNS: "the index of columns"}.get(name)
    if name == TEXTS:
        return StoreCorruptError(
            "store.db: texts of samples are not what was written: 'rapidin verify' names the samples; restore "
            "store.db from a backup, or delete them and ingest them again"
        )
    if what is None:
        found = session.scalar(select(MetadataFieldRow.name).where(MetadataFieldRow.id == int(name.split()[1])))
        what = f"what filters see of {found!r}"
    return StoreCorruptError(
        f"store.db: {what} is not what was written, because the file was damaged: restore it from a backup, or "
        "run 'rapidin compact', which makes it again from the samples"
    )


def fill(session: Session) -> None:
    """Compute all digests from the tables."""
    session.connection().exec_driver_sql("DELETE FROM digests")
    _add(session, _sums(session, "key >= ?", (0,), True))


def wrong(session: Session) -> list[str]:
    """Return the names of the digests that differ from what they cover."""
    fields = [of_field(id) for id in session.scalars(select(MetadataFieldRow.id))]
    names = (PLACES, IDS, COLUMNS, TEXTS, *fields)
    return [name for name in names if any(found != _recorded(session, name) for found in _read(session, name))]


def _recorded(session: Session, name: str) -> int:
    found = session.connection().exec_driver_sql("SELECT value FROM digests WHERE name = ?", (name,)).scalar()
    return int(found or 0)


def _read(session: Session, name: str) -> Iterator[int]:
    """Yield the digest of what searches read, from each index or table that they read it from."""
    connection = session.connection()
    if name == PLACES:
        statement = f"SELECT {_PLACES} FROM samples INDEXED BY {SEARCH_INDEX} WHERE deleted_at IS NULL"
        yield places_digest(_numbers(connection.exec_driver_sql(statement)))
    elif name in _LIVE:
        # Texts are looked up in the rows themselves, as filters do.
        index = SEARCH_INDEX if name == IDS else LIVE_INDEX
        statement = f"SELECT {_LIVE[name]} FROM samples AS s INDEXED BY {index} WHERE deleted_at IS NULL"
        yield connection.exec_driver_sql(statement).scalar() or 0
        if name == COLUMNS:
            # This index is searched by a copy of the key that SQLite never shows, so look up each key as well.
            # SQLite keeps the order of a cross join.
            statement = (
                f"SELECT {_LIVE[name]} FROM samples AS other INDEXED BY {SEARCH_INDEX} "
                f"CROSS JOIN samples AS s INDEXED BY {LIVE_INDEX} ON s.key = other.key "
                "WHERE other.deleted_at IS NULL AND s.deleted_at IS NULL"
            )
            yield connection.exec_driver_sql(statement).scalar() or 0
    else:
        field = (int(name.split()[1]),)
        statement = f"SELECT {_METADATA} FROM sample_metadata INDEXED BY {VALUE_INDEX} WHERE field_id = ?"
        yield connection.exec_driver_sql(statement, field).scalar() or 0
        # This reads the table itself, which is in the order of the samples.
        statement = f"SELECT {_METADATA} FROM sample_metadata WHERE sample_key >= 0 AND field_id + 0 = ?"
        yield connection.exec_driver_sql(statement, field).scalar() or 0


def _sums(session: Session, condition: str, values: Sequence[Any], metadata: bool) -> Counter[str]:
    connection, values = session.connection(), tuple(values)
    live = f"FROM samples AS s WHERE deleted_at IS NULL AND {condition}"
    found = connection.exec_driver_sql(f"SELECT {', '.join(_LIVE.values())} {live}", values).one()
    sums = Counter({name: value or 0 for name, value in zip(_LIVE, found, strict=True)})  # None without rows
    sums[PLACES] = places_digest(_numbers(connection.exec_driver_sql(f"SELECT {_PLACES} {live}", values)))
    if metadata:
        statement = (
            f"SELECT field_id, {_METADATA} FROM sample_metadata "
            f"WHERE sample_key IN (SELECT key FROM samples WHERE {condition}) GROUP BY field_id"
        )
        sums.update({of_field(id): value for id, value in connection.exec_driver_sql(statement, values)})
    return sums


def _add(session: Session, change: Counter[str]) -> None:
    connection = session.connection()
    changed = {name: value for name, value in change.items() if value % _WRAP}
    recorded = {name: value for name, value in connection.exec_driver_sql("SELECT name, value FROM digests")}
    rows = [(name, _signed(recorded.get(name, 0) + value)) for name, value in changed.items()]
    if rows:
        connection.exec_driver_sql("INSERT OR REPLACE INTO digests (name, value) VALUES (?, ?)", rows)


def _numbers(result: CursorResult[Any]) -> NDArray[np.float64]:
    try:
        return np.array([tuple(row) for row in result], np.float64).reshape(-1, 4)
    except (TypeError, ValueError, OverflowError) as error:
        raise StoreCorruptError(
            f"store.db: the place of a vector is not a number ({error}); restore store.db from a backup"
        ) from error


def _signed(value: int) -> int:
    value %= _WRAP
    return value - _WRAP if value >= _WRAP // 2 else value
