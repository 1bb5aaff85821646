"""Exact maximum inner product search: every vector is decoded and multiplied, nothing is approximated.

Decoding costs more than multiplying, so a block is decoded once for all queries. Threads each take every T-th
block, with a buffer and a running best of their own, so that memory does not grow with the store. The order of
results is total – score, then id – hence independent of how rows were cut into blocks.

n rows · q queries · K numbers in a vector · k results · m rows of a block.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped,unused-ignore]

from rapidin.errors import StoreError
from rapidin.storage.segments import Segment, load_faiss

Part = TypeVar("Part")

_one_scan = threading.Lock()

BLOCK_BYTES = 2**25
"""Of decoded float32 vectors, for each thread."""
BLOCK_SCORES = 2**22
"""Scores of a block at most, so that thousands of queries do not fill the memory either."""
MOST_THREADS = 4
"""More do not pay: a few saturate the memory's bandwidth."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Vectors to be searched, in ascending order of their samples' ids; all arrays are [n].

    Attributes:
        keys: of the samples' rows in the database.
        segments: database ids of their segments.
        positions: in the segment.
        scales: to multiply the scores with.
    """

    keys: NDArray[np.int64]
    segments: NDArray[np.int64]
    positions: NDArray[np.int64]
    scales: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.keys)

    def having(self, keys: NDArray[np.int64]) -> Rows:
        """The rows with one of `keys` [m], in the same order."""
        wanted = np.isin(self.keys, keys)
        return Rows(self.keys[wanted], self.segments[wanted], self.positions[wanted], self.scales[wanted])


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one segment that are decoded together: indexes into `Rows` [m], in order of position."""

    segment: Segment
    indexes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Best:
    """The best found so far: scores [q, ≤ k] and their indexes into `Rows`, best first."""

    scores: NDArray[np.float32]
    indexes: NDArray[np.int64]


def search(
    queries: NDArray[np.float32],
    k: int,
    rows: Rows,
    open_by_id: Callable[[int], Segment],
) -> Best:
    """The k rows of largest inner product for each query, equal scores by ascending id.

    Args:
        queries: [q, K].
        k: results wanted; fewer come back where there are fewer rows.
        rows: what to search.
        open_by_id: gives the segment of a database id.
    """
    blocks = list(_blocks(rows, open_by_id, queries))

    def run(part: Sequence[Block]) -> Best:
        best = _nothing(len(queries))
        for block, scores in _scored(queries, rows, part):
            best = _merged(best, Best(scores, block.indexes), k)
        return best

    merged = _nothing(len(queries))
    for part in _in_threads(run, blocks):
        merged = Best(
            np.concatenate([merged.scores, part.scores], axis=1),
            np.concatenate([merged.indexes, part.indexes], axis=1),
        )
    return _sorted(merged, k)


def all_scores(
    queries: NDArray[np.float32], rows: Rows, open_by_id: Callable[[int], Segment]
) -> NDArray[np.float32]:
    """Inner products of every query with every row, [q, n]."""
    scores = np.empty((len(queries), len(rows)), dtype=np.float32)

    def run(part: Sequence[Block]) -> None:
        for block, of_block in _scored(queries, rows, part):
            scores[:, block.indexes] = of_block

    _in_threads(run, list(_blocks(rows, open_by_id, queries)))
    return scores


def _blocks(rows: Rows, open_by_id: Callable[[int], Segment], queries: NDArray[np.float32]) -> Iterator[Block]:
    """Cut the rows into blocks of one segment each."""
    if not len(rows) or not len(queries):
        return
    size = max(1, min(BLOCK_BYTES // (4 * queries.shape[1]), BLOCK_SCORES // len(queries)))
    order = np.lexsort((rows.positions, rows.segments))
    borders = np.flatnonzero(np.diff(rows.segments[order])) + 1
    for group in np.split(order, borders):
        segment = open_by_id(int(rows.segments[group[0]]))
        for start in range(0, len(group), size):
            yield Block(segment, group[start : start + size])


def _in_threads(run: Callable[[Sequence[Block]], Part], blocks: Sequence[Block]) -> list[Part]:
    """`run` on shares of the blocks, at the same time; an error of one is raised here."""
    threads = max(1, min(MOST_THREADS, _processors(), len(blocks)))
    shares = [blocks[number::threads] for number in range(threads)]
    # FAISS and BLAS would each start a team of their own in every thread, and all would wait for each other,
    # many times slower. FAISS's setting only counts for the calling thread; that of BLAS for the process, so
    # one scan runs at a time – it uses all processors anyway – and sets it back.
    alone = load_faiss().omp_set_num_threads
    with (
        _one_scan,
        _blas().limit(limits=1),
        ThreadPoolExecutor(threads, initializer=alone, initargs=(1,)) as executor,
    ):
        return list(executor.map(run, shares))


@cache
def _blas() -> ThreadpoolController:
    """Control over NumPy's BLAS; finding it takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")


def _processors() -> int:
    """Processors that this process may use; a container or a batch system may allow fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _scored(
    queries: NDArray[np.float32], rows: Rows, blocks: Sequence[Block]
) -> Iterator[tuple[Block, NDArray[np.float32]]]:
    """Each block and its scores [q, m]."""
    if not blocks:
        return
    buffer = np.empty((max(len(block.indexes) for block in blocks), queries.shape[1]), dtype=np.float32)
    for block in blocks:
        vectors = block.segment.decode(rows.positions[block.indexes], buffer)  # [m, K]
        with np.errstate(over="ignore", invalid="ignore"):  # looked at below
            scores = (queries @ vectors.T) * rows.scales[block.indexes]  # [q, m]
        if not np.isfinite(scores).all():
            raise StoreError(
                f"{block.segment.path}: a score is beyond single precision; give queries of a smaller norm"
            )
        yield block, scores


def _nothing(queries: int) -> Best:
    return Best(np.empty((queries, 0), np.float32), np.empty((queries, 0), np.int64))


def _merged(best: Best, block: Best, k: int) -> Best:
    """`best` and a block's scores [q, m] with indexes [m], cut to the best k."""
    contenders = block.scores
    if best.scores.shape[1] == k and not (contenders.max(axis=1) >= best.scores[:, -1]).any():
        return best
    indexes = np.broadcast_to(block.indexes, contenders.shape)
    return _sorted(
        Best(
            np.concatenate([best.scores, contenders], axis=1),
            np.concatenate([best.indexes, indexes], axis=1),
        ),
        k,
    )


def _sorted(best: Best, k: int) -> Best:
    """The first k by descending score, then ascending index, which is the order of ids."""
    width = min(k, best.scores.shape[1])
    scores = np.empty((len(best.scores), width), np.float32)
    indexes = np.empty((len(best.scores), width), np.int64)
    for query, (of_query, at) in enumerate(zip(best.scores, best.indexes, strict=True)):
        chosen = np.arange(len(of_query))
        if len(of_query) > width > 0:
            # All that equal the k-th score stay in until ids decide.
            threshold = np.partition(of_query, len(of_query) - width)[len(of_query) - width]
            chosen = np.flatnonzero(of_query >= threshold)
        first = chosen[np.lexsort((at[chosen], -of_query[chosen]))[:width]]
        scores[query], indexes[query] = of_query[first], at[first]
    return Best(scores, indexes)
