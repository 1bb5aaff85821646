"""Time of filters, counts, lists and snapshots in a store of many samples with five metadata fields.

    python -m benchmarks.metadata --rows 1000000 --place DIRECTORY

The store is filled by `StoreWriter.commit`, as an ingest does, in batches of 20,000 samples with random vectors of
64 numbers. Every time is the median of a few calls, after one that is told as the first, in a process of its own
that has just opened the store; the operating system has the files in memory.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import tables
from benchmarks.fresh import in_fresh_process
from benchmarks.stores import settings_without_model
from rapidin.settings.choices import Bits
from rapidin.storage import NewSample, Store

DIMENSION = 64
BITS: Bits = 16
BATCH = 20_000
ROUNDS = 3
NEW_TABLES = {"sample_metadata", "ix_sample_metadata_value", "ix_samples_live", "ix_samples_live_search"}
COUNTS = (
    "tokens > 250",
    "file = data/part-3.jsonl",
    "file ~ part-[34]",
    "truncated = true",
    "id = sample-00000777",
    "category = c3",
    "category != c3",
    "category ~ ^c[34]$",
    "number = 777",
    "number >= {half}",
    "score > 0.9",
    "score > 0.5",
    "score != 2",
    "good = true",
    "note = nothing",
    "note ~ word33",
    "note ~ word33.*word44",
    "missing = null",
)
LISTS = ("category = c3", "score > 0.5", "number = 777")
SEARCHES = ("category = c3", "score > 0.5", "number = 777")


def main() -> None:
    """Build the store, measure, remove it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--place", type=Path, default=Path("metadata-benchmark"))
    arguments = parser.parse_args()
    path = arguments.place / "store"
    try:
        seconds = _build(path, arguments.rows)
        print(
            f"{arguments.rows:,} samples, {tables.machine(1)}; stored at {arguments.rows / seconds:,.0f} samples/s"
        )
        tables.heading("Bytes of store.db a sample", "what", "bytes")
        for what, size in _sizes(path / "store.db", arguments.rows).items():
            tables.row(what, f"{size:,.0f}")
        tables.heading("Time", "what", "result", "first, s", "then, s")
        for what, result, first, later in in_fresh_process(1, _times, str(path), arguments.rows):
            tables.row(what, f"{result:,}", f"{first:.3f}", f"{later:.3f}")
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _build(path: Path, rows: int) -> float:
    """Fill a new store; the seconds that it took to commit."""
    numbers = np.random.default_rng(0)
    chance = random.Random(0)
    seconds = 0.0
    with Store.create(path, settings_without_model(DIMENSION, BITS)) as store, store.writer() as writer:
        for start in range(0, rows, BATCH):
            samples = [_sample(i, chance) for i in range(start, min(start + BATCH, rows))]
            vectors = numbers.standard_normal((len(samples), DIMENSION), dtype=np.float32)
            before = time.perf_counter()
            writer.commit(samples, vectors, np.abs(vectors).max(axis=1))
            seconds += time.perf_counter() - before
    return seconds


def _sample(i: int, chance: random.Random) -> NewSample:
    words = [f"word{chance.randrange(500)}" for _ in range(80)]
    return NewSample(
        id=f"sample-{chance.getrandbits(32):08x}{i:08x}" if i != 777 else "sample-00000777",
        prompt=" ".join(words[:30]),
        response=" ".join(words[30:72]),
        metadata={
            "category": f"c{chance.randrange(10)}",
            "number": i,
            "score": chance.random(),
            "good": chance.random() < 0.3,
            "note": " ".join(words[72:]),
            **({"missing": None} if i == 0 else {}),
        },
        file=f"data/part-{i % 8}.jsonl",
        row=i,
        tokens=chance.randrange(20, 500),
        targets=chance.randrange(5, 200),
        truncated=i % 50 == 0,
        content_hash=f"{chance.getrandbits(256):064x}",
    )


def _sizes(database: Path, rows: int) -> dict[str, float]:
    connection = sqlite3.connect(database)
    sizes = dict(connection.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"))
    connection.close()
    new = sum(size for name, size in sizes.items() if name in NEW_TABLES)
    total = sum(sizes.values())
    told = {"all": total, "without what filters and opening use": total - new}
    return {name: size / rows for name, size in {**told, **{n: sizes[n] for n in sorted(NEW_TABLES)}}.items()}


def _times(path: str, rows: int) -> list[tuple[str, int, float, float]]:
    """What was done, how many results it had, seconds of the first and of later times."""
    found = []

    def measure(what: str, action: Callable[[], int]) -> None:
        seconds = []
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            result = action()
            seconds.append(time.perf_counter() - start)
        found.append((what, result, seconds[0], statistics.median(seconds[1:])))

    query = np.random.default_rng(1).standard_normal((1, DIMENSION), dtype=np.float32)
    with Store.open(path) as store:
        measure("count", store.count)
        for condition in COUNTS:
            where = [condition.format(half=rows // 2)]
            measure(f"count `{where[0]}`", lambda where=where: store.count(where))
        measure("list, limit 20", lambda: len(store.list(limit=20)))
        measure("list, limit 20, offset 90 %", lambda: len(store.list(limit=20, offset=rows * 9 // 10)))
        for condition in LISTS:
            measure(f"list `{condition}`, limit 20", lambda c=condition: len(store.list([c], limit=20)))
        measure("info", lambda: store.info().samples)
        measure("open a snapshot", lambda: _opened(store))
        with store.snapshot() as snapshot:
            measure("search, 1 query", lambda: snapshot.search(query, 20))
            for condition in SEARCHES:
                measure(f"search `{condition}`", lambda c=condition: snapshot.search(query, 20, [c]))
    return found


def _opened(store: Store) -> int:
    with store.snapshot() as snapshot:
        return snapshot.samples


if __name__ == "__main__":
    main()
