"""Exact maximum inner product search: every row is compared with every query, nothing is approximated.

Queries are compared with the codes where they lie, a few at the speed of memory; for many, a block of rows in
half precision is decoded once, slice by slice, and multiplied with all of them. Threads take blocks as they come,
with a buffer and a running best of their own, so that memory does not grow with the store, and nothing is decoded
as a whole.
The order of results is total – score, then id – hence independent of how rows were cut into blocks.

n rows · q queries · K numbers in a vector · k results · m rows of a block.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import StoreError
from rapidin.storage.scan.decoded import ONE_SCAN, SLICE, SlicedQueries, single_threaded
from rapidin.storage.scan.products import SIGNS, PreparedQueries, prepared
from rapidin.storage.scan.ranking import Ends, joined_ends
from rapidin.storage.vectors import Codec, Rows, Segment

Part = TypeVar("Part")

SCANNED_BYTES = 2**22
"""Of codes that several queries are compared with one after the other, while they are in the cache."""
SCANNED_ONCE_BYTES = 2**25
"""The same for a single query; larger blocks mean fewer calls."""
_BLOCKS_PER_THREAD = 4
_BYTES_PER_THREAD = 2**23
"""Of codes, times queries, for which another thread is worth starting."""
GATHERED_BYTES = 2**21
"""Of scattered rows that are copied to one place at a time, to fit a processor's own cache."""
MOST_IN_HALVES = 12
"""Queries that rows in half precision are multiplied with where they lie; for more, they are decoded."""
DECODED_NUMBERS = 2**20
"""Of a slice of a block, for each thread."""
BLOCK_SCORES = 2**19
"""Scores of a block at most, so that thousands of queries do not fill the memory either."""
_SCATTERED = 2
"""A single query is compared with up to so many times the rows that are wanted rather than these gathered."""
_IN_MEMORY = 0.25
"""Share of the machine's memory up to which codes are taken to be there; to ask costs a tenth of a scan."""
MOST_THREADS = 8
"""More do not pay: a few saturate the memory's bandwidth."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one segment that are compared together: indexes into `Rows` [m], in order of position."""

    segment: Segment
    indexes: NDArray[np.int64]


def search(
    queries: NDArray[np.float32],
    k: int,
    rows: Rows,
    open_by_id: Callable[[int], Segment],
    both: bool = False,
) -> Ends:
    """The k rows of largest, and of smallest, inner product for each query, equal scores by ascending id.

    Args:
        queries: [q, K].
        k: results wanted; fewer come back where there are fewer rows.
        rows: what to search.
        open_by_id: gives the segment of a database id.
        both: whether the smallest are wanted, too.
    """
    task = _Task(queries, rows, open_by_id)

    def run(blocks: Iterator[Block]) -> Ends:
        ends = Ends(len(queries), k, both)
        for block, scores in task.scored(blocks):
            ends.add(scores, block.indexes)
        return ends

    return joined_ends(task.in_threads(run), len(queries), k, both)


def all_scores(
    queries: NDArray[np.float32], rows: Rows, open_by_id: Callable[[int], Segment], signs: int = SIGNS
) -> NDArray[np.float32]:
    """Inner products of every query with every row, [q, n]; `signs` as `products.prepared` takes it."""
    scores = np.empty((len(queries), len(rows)), dtype=np.float32)
    task = _Task(queries, rows, open_by_id, signs)

    def run(blocks: Iterator[Block]) -> None:
        for block, of_block in task.scored(blocks):
            scores[:, block.indexes] = of_block

    task.in_threads(run)
    return scores


class _Task:
    """One comparison of all rows with all queries, cut into blocks, of which each thread takes the next."""

    def __init__(
        self,
        queries: NDArray[np.float32],
        rows: Rows,
        open_by_id: Callable[[int], Segment],
        signs: int = SIGNS,
    ) -> None:
        self._rows = rows
        self._of_thread = threading.local()
        self._single = len(queries) == 1
        self._blocks = list(_blocks(rows, open_by_id, queries))
        codecs = {block.segment.codec for block in self._blocks}
        self._sliced = any(_is_sliced(codec, len(queries)) for codec in codecs)
        self._prepared = {codec: _prepared(codec, codec.turned(queries), signs) for codec in codecs}
        codes = sum(len(block.indexes) * block.segment.codes.shape[1] for block in self._blocks)
        self._announces = codes > _IN_MEMORY * _memory_bytes()
        worth = -(-codes * len(queries) // _BYTES_PER_THREAD)
        self._threads = max(1, min(MOST_THREADS, processors(), len(self._blocks), worth))

    def in_threads(self, run: Callable[[Iterator[Block]], Part]) -> list[Part]:
        """`run` in this thread and others, on the blocks that it takes; an error of one is raised here."""
        if not self._blocks:
            return []
        blocks = iter(self._blocks)  # of a list, so that several threads may draw from it
        # torch would start a team of its own in every thread, and all would wait for each other, many times
        # slower. Its setting counts for the process, so one scan runs at a time – it uses all processors anyway –
        # and sets it back.
        with (
            ONE_SCAN,
            single_threaded() if self._sliced else nullcontext(),
            ThreadPoolExecutor(self._threads) as executor,
        ):
            others = [executor.submit(run, blocks) for _ in range(self._threads - 1)]
            mine = run(blocks)  # to start another thread, and wait for it, would take longer
            return [mine, *(other.result() for other in others)]

    def scored(self, blocks: Iterator[Block]) -> Iterator[tuple[Block, NDArray[np.float32]]]:
        """Each block and its scores [q, m]; in a thread of its own."""
        for block in blocks:
            positions = self._rows.positions[block.indexes]
            if self._announces:
                block.segment.announce(positions)
            with np.errstate(over="ignore", invalid="ignore"):  # looked at below
                scores = self._products(block.segment, positions) * self._rows.scales[block.indexes]
            if not np.isfinite(scores).all():
                raise StoreError(
                    f"{block.segment.path}: a score is beyond single precision; give queries of a smaller norm"
                )
            yield block, scores

    def _products(self, segment: Segment, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Inner products [q, m] with the codes at ascending `positions` [m]."""
        queries = self._prepared[segment.codec]
        first, last = segment.range_of(positions)
        between = last - first + 1
        if between == len(positions):
            return queries.scores(segment.codes[first : last + 1])
        if self._single and between <= _SCATTERED * len(positions):
            return queries.scores(segment.codes[first : last + 1])[:, positions - first]
        row_bytes = segment.codes.shape[1]
        step = max(1, GATHERED_BYTES // row_bytes)
        memory = self._memory(min(step, len(positions)), row_bytes)
        scores = []
        for start in range(0, len(positions), step):
            some = positions[start : start + step]
            codes = memory[: len(some)]
            np.take(segment.codes, some, axis=0, out=codes, mode="clip")  # any other mode copies once more
            scores.append(queries.scores(codes))
        return np.concatenate(scores, axis=1)

    def _memory(self, rows: int, row_bytes: int) -> NDArray[np.uint8]:
        """Where this thread gathers codes: memory that is new costs more than the copying."""
        memory: NDArray[np.uint8] | None = getattr(self._of_thread, "memory", None)
        if memory is None or memory.size < rows * row_bytes:
            memory = self._of_thread.memory = np.empty(rows * row_bytes, np.uint8)
        return memory[: rows * row_bytes].reshape(rows, row_bytes)


def _prepared(codec: Codec, queries: NDArray[np.float32], signs: int) -> PreparedQueries:
    return SlicedQueries(queries) if _is_sliced(codec, len(queries)) else prepared(codec, queries, signs)


def _is_sliced(codec: Codec, queries: int) -> bool:
    return codec.bits == 16 and queries > MOST_IN_HALVES


def _blocks(rows: Rows, open_by_id: Callable[[int], Segment], queries: NDArray[np.float32]) -> Iterator[Block]:
    """Cut the rows into blocks of one segment each."""
    if not len(queries):
        return
    for segment_id, group in rows.by_segment():
        segment = open_by_id(segment_id)
        size = _block_rows(segment.codec, queries)
        if len(queries) == 1:  # large blocks, but enough of them that no thread waits long for the other
            size = min(size, -(-len(rows) // (_BLOCKS_PER_THREAD * processors())))
        for start in range(0, len(group), size):
            yield Block(segment, group[start : start + size])


def _block_rows(codec: Codec, queries: NDArray[np.float32]) -> int:
    count, dimension = len(queries), int(queries.shape[1])
    if _is_sliced(codec, count):
        size = DECODED_NUMBERS // min(dimension, SLICE)
    else:
        size = (SCANNED_ONCE_BYTES if count == 1 else SCANNED_BYTES) // codec.row_bytes(dimension)
    return max(1, min(size, BLOCK_SCORES // count))


@cache
def _memory_bytes() -> int:
    """Of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def processors() -> int:
    """Processors that this process may use; a container or a batch system may allow fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
