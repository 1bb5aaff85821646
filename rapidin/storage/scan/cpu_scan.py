"""The scan by the CPU. It compares queries with codes where these lie in memory, or with decoded slices of them.

Few queries are compared at the speed of memory. For many queries some codecs decode a block of rows once. Each
thread takes the next block, and has a buffer and results of its own, so that memory does not grow with the store,
and no segment is decoded as a whole.

n rows · q queries · K numbers in a vector · k results · m rows of a block.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import StoreError
from rapidin.storage.scan.ranking import Ends, joined_ends
from rapidin.storage.vectors import SLICE, Codec, Rows, Segment, SegmentSource
from rapidin.support import processors, torch_threads

Part = TypeVar("Part")

SCANNED_BYTES = 2**22
"""Bytes of codes that several queries are compared with one after the other, while the codes are in the cache."""
SCANNED_ONCE_BYTES = 2**25
"""Bytes of codes that a single query is compared with at a time; larger blocks make fewer calls."""
_BLOCKS_PER_THREAD = 4
"""Minimum number of blocks for each thread if there is a single query, so that threads end at the same time."""
_BYTES_PER_THREAD = 2**23
"""Bytes of codes, times the number of queries, for which it is worth starting another thread."""
GATHERED_BYTES = 2**21
"""Bytes of scattered rows that are copied to one place at a time; they fit a processor's own cache."""
DECODED_NUMBERS = 2**20
"""Maximum count of numbers that a thread decodes at a time."""
BLOCK_SCORES = 2**19
"""Maximum number of scores of a block, so that thousands of queries do not fill the memory either."""
_SCATTERED = 2
"""A single query is compared with a whole range of rows if it holds at most this many times the wanted rows.

That is faster than gathering the wanted rows.
"""
_IN_MEMORY = 0.25
"""Share of the machine's memory up to which codes are taken to be in it; asking would cost a tenth of a scan."""
MOST_THREADS = 8
"""Maximum number of threads: a few saturate the memory's bandwidth."""


@dataclass(frozen=True, slots=True)
class _RowBlock:
    """Rows of one segment that are compared together: indexes into `Rows` [m], in order of position."""

    segment: Segment
    indexes: NDArray[np.int64]


class CpuScan:
    """The scan by the processors of this machine; see `Scan`."""

    outruns_indexes = False

    def best(
        self,
        queries: NDArray[np.float32],
        k: int,
        rows: Rows,
        segments: SegmentSource,
        both: bool = False,
    ) -> Ends:
        """Find the k rows at each end; see `Scan.best`."""
        task = _Task(queries, rows, segments)

        def run(blocks: Iterator[_RowBlock]) -> Ends:
            ends = Ends(len(queries), k, both)
            for block, scores in task.scored(blocks):
                ends.add(scores, block.indexes)
            return ends

        return joined_ends(task.in_threads(run), len(queries), k, both)

    def scores(
        self,
        queries: NDArray[np.float32],
        rows: Rows,
        segments: SegmentSource,
        query_bits: int | None = None,
    ) -> NDArray[np.float32]:
        """Return all inner products [q, n]; see `Scan.scores`."""
        scores = np.empty((len(queries), len(rows)), dtype=np.float32)
        task = _Task(queries, rows, segments, query_bits)

        def run(blocks: Iterator[_RowBlock]) -> None:
            for block, of_block in task.scored(blocks):
                scores[:, block.indexes] = of_block

        task.in_threads(run)
        return scores


class _Task:
    """One comparison of all rows with all queries, cut into blocks, of which each thread takes the next.

    Attributes:
        turn: lock that is held while threads compare, so that one comparison runs at a time, because each uses all
            processors.
    """

    turn: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        queries: NDArray[np.float32],
        rows: Rows,
        segments: SegmentSource,
        query_bits: int | None = None,
    ) -> None:
        self._rows = rows
        self._of_thread = threading.local()
        self._single = len(queries) == 1
        self._blocks = list(_blocks(rows, segments, queries))
        codecs = {block.segment.codec for block in self._blocks}
        self._uses_torch = any(codec.decodes_for(len(queries)) for codec in codecs)
        self._prepared = {codec: codec.prepared(codec.turned(queries), query_bits) for codec in codecs}
        codes = sum(len(block.indexes) * block.segment.codes.shape[1] for block in self._blocks)
        self._announces = codes > _IN_MEMORY * _memory_bytes()
        worth = -(-codes * len(queries) // _BYTES_PER_THREAD)
        self._threads = max(1, min(MOST_THREADS, processors(), len(self._blocks), worth))

    def in_threads(self, run: Callable[[Iterator[_RowBlock]], Part]) -> list[Part]:
        """Run a function in this thread and in others; each call takes blocks from the same iterator.

        An error of one of the threads is raised here.
        """
        if not self._blocks:
            return []
        blocks = iter(self._blocks)  # of a list, so that several threads may draw from it

        def alone() -> Part:
            if not self._uses_torch:
                return run(blocks)
            # Otherwise torch would start threads in every thread, and all of them would wait for each other.
            with torch_threads(1):
                return run(blocks)

        with self.turn, ThreadPoolExecutor(self._threads) as executor:
            others = [executor.submit(alone) for _ in range(self._threads - 1)]
            mine = alone()  # to start another thread, and wait for it, would take longer
            return [mine, *(other.result() for other in others)]

    def scored(self, blocks: Iterator[_RowBlock]) -> Iterator[tuple[_RowBlock, NDArray[np.float32]]]:
        """Yield each block with its scores [q, m]; several threads call this at once."""
        for block in blocks:
            positions = self._rows.positions[block.indexes]
            if self._announces:
                block.segment.announce(positions)
            with np.errstate(over="ignore", invalid="ignore"):  # checked below
                scores = self._products(block.segment, positions) * self._rows.scales[block.indexes]
            if not np.isfinite(scores).all():
                raise StoreError(
                    f"{block.segment.path}: a score is beyond single precision; give queries of a smaller norm"
                )
            yield block, scores

    def _products(self, segment: Segment, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the inner products [q, m] of the queries with the codes at ascending `positions` [m]."""
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
        """Return memory where this thread gathers codes; new memory would cost more than copying the codes."""
        memory: NDArray[np.uint8] | None = getattr(self._of_thread, "memory", None)
        if memory is None or memory.size < rows * row_bytes:
            memory = self._of_thread.memory = np.empty(rows * row_bytes, np.uint8)
        return memory[: rows * row_bytes].reshape(rows, row_bytes)


def _blocks(rows: Rows, segments: SegmentSource, queries: NDArray[np.float32]) -> Iterator[_RowBlock]:
    """Cut the rows into blocks of one segment each."""
    if not len(queries):
        return
    for segment_id, group in rows.by_segment():
        segment = segments(segment_id)
        size = _block_rows(segment.codec, queries)
        if len(queries) == 1:  # large blocks, but enough of them that no thread waits long for another
            size = min(size, -(-len(rows) // (_BLOCKS_PER_THREAD * processors())))
        for start in range(0, len(group), size):
            yield _RowBlock(segment, group[start : start + size])


def _block_rows(codec: Codec, queries: NDArray[np.float32]) -> int:
    """Return the number of rows of a block that suits a codec and the queries [q, K]."""
    count, dimension = len(queries), int(queries.shape[1])
    if codec.decodes_for(count):
        size = DECODED_NUMBERS // min(dimension, SLICE)
    else:
        size = (SCANNED_ONCE_BYTES if count == 1 else SCANNED_BYTES) // codec.row_bytes(dimension)
    return max(1, min(size, BLOCK_SCORES // count))


@cache
def _memory_bytes() -> int:
    """Return the size of the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
