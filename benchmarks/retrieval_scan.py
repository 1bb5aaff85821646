"""Exact search against the memory's bandwidth, and against bare matrix products of torch and FAISS."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import torch

from benchmarks import tables
from benchmarks.retrieval_world import World, make_store
from rapidin.settings.choices import Bits
from rapidin.storage import Store

_BITS: tuple[Bits, ...] = (16, 4, 1)
_COUNTS = (1, 16, 64, 256)
_ROUNDS = 5


def scan_table(rows: int, dimension: int, threads: int, work: Path) -> None:
    """Print how fast exact search is beside what it could be at best.

    The yardstick of one query is to add up the bytes that it compares, for a store those of its mapped files; that
    of several is one product of torch, float32, with the rows decoded beforehand. All take turns, and ratios are
    formed within a turn.

    Args:
        rows, dimension: of the store.
        threads: of everything.
        work: directory for the stores.
    """
    faiss.omp_set_num_threads(threads)
    world = World(rows, dimension)
    stores = {bits: work / f"scan-{bits}" for bits in _BITS}
    for bits, path in stores.items():
        make_store(world, bits, path)
    queries = world.queries(max(_COUNTS))
    dense = np.concatenate(list(world.pieces()))
    plain = torch.from_numpy(dense)
    flat = faiss.IndexFlatIP(dimension)
    flat.add(dense)
    halves = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    halves.add(dense)
    tables.heading(
        f"Exact search, {rows:,} vectors, K = {dimension:,}; k = 10; median (range) of {_ROUNDS} turns",
        *("queries", "way", "ms", "GB/s of codes", "bandwidth or bare product : time"),
    )
    opened = {bits: Store.open(path) for bits, path in stores.items()}
    snapshots = {bits: store.snapshot() for bits, store in opened.items()}
    for count in _COUNTS:
        some = queries[:count]
        ways: dict[str, Callable[[], object]] = {
            f"rapidin, {bits} bits": lambda bits=bits, some=some: snapshots[bits].search(some, 10)
            for bits in _BITS
        }
        ways["FAISS flat, float32"] = lambda some=some: flat.search(some, 10)
        ways["FAISS scalar quantiser, float16"] = lambda some=some: halves.search(some, 10)
        ways["torch product, float32"] = lambda some=some: torch.from_numpy(some) @ plain.T
        words = {name: [dense.view(np.int64)] for name in ways if name.endswith("float32")}
        words["FAISS scalar quantiser, float16"] = [dense[: rows // 2].view(np.int64)]
        words |= {f"rapidin, {bits} bits": _mapped(path) for bits, path in stores.items()}
        _rows_of(count, ways, words, threads)
    for snapshot in snapshots.values():
        snapshot.close()
    for store in opened.values():
        store.close()


def _rows_of(
    count: int,
    ways: dict[str, Callable[[], object]],
    words: dict[str, list[np.ndarray]],
    threads: int,
) -> None:
    product = "torch product, float32"
    times: dict[str, list[float]] = {name: [] for name in ways}
    best: dict[str, list[float]] = {name: [] for name in ways}
    for name in ways:
        ways[name]()
    for _ in range(_ROUNDS):
        for name, way in ways.items():
            times[name].append(_seconds(way))
        for name in ways:
            yardstick = _reading(words[name], threads) if count == 1 else times[product][-1]
            best[name].append(yardstick / times[name][-1])
    for name, seconds in times.items():
        size = sum(part.nbytes for part in words[name])
        tables.row(
            count,
            name,
            tables.median_and_range([1000 * value for value in seconds], 1),
            f"{size / statistics.median(seconds) / 1e9:.1f}",
            tables.median_and_range(best[name]),
        )


def _mapped(store: Path) -> list[np.ndarray]:
    files = sorted((store / "segments").iterdir())
    return [np.memmap(file, np.int64, "r", shape=(file.stat().st_size // 8,)) for file in files]


def _reading(words: list[np.ndarray], threads: int) -> float:
    """Seconds to read everything: threads add it up as integers."""
    parts = [part for array in words for part in np.array_split(array.ravel(), 4 * threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(np.sum, parts[:threads]))
        started = time.perf_counter()
        list(pool.map(np.sum, parts))
        return time.perf_counter() - started


def _seconds(way: Callable[[], object]) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started
