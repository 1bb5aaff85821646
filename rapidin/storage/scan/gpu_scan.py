"""The scan by GPUs. It keeps blocks of vectors in their memory, in half precision, and FAISS compares them.

Segments are dealt out to the GPUs, decoded once, and kept there while there is room. Segments that do not fit are
copied for each search, one at a time. FAISS's GPU search takes no filter, so a block is first cut down to the rows
that are wanted. Queries and rows have half precision, and sums have single precision. Hence scores differ from the
CPU's in the fourth digit, and rows of nearly equal scores may come in another order.

`faiss.bfKnn` is called as `faiss.knn_gpu` calls it, but on tensors where they are. FAISS's own way to do that,
``faiss.contrib.torch_utils``, replaces the `search` of every index in the process by one that takes no parameters.

q queries · m rows of a block · K numbers in a vector · k results.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapidin.storage.scan.ranking import Ends, joined_ends
from rapidin.storage.scan.scan_protocol import Scan
from rapidin.storage.vectors import Rows, Segment, SegmentSource, load_faiss

logger = logging.getLogger(__name__)

MOST_RESULTS = 2048
"""Maximum number of results for each query of FAISS on a GPU; the CPU serves searches for more."""
MOST_ROWS = 8192
"""Maximum number of rows of a segment that are compared together, because they may have to be copied."""
_MARGIN = 32
"""Number of results beyond k that are asked for, so that ids decide between rows of equal scores."""
_LEAST_FREE = 0.25
"""Minimum share of a GPU's memory that stays free for other work."""


class GpuScan:
    """The scan by some GPUs; see `Scan`. It keeps blocks between searches, which take turns.

    Args:
        devices: devices as torch names them, ``cuda:0`` and so on.
        cpu: scan for searches that GPUs cannot serve, which want all scores, very many results, or more memory.
    """

    outruns_indexes = True

    def __init__(self, devices: Sequence[str], cpu: Scan) -> None:
        self._devices = tuple(devices)
        self._cpu = cpu
        self._kept: dict[tuple[str, Path], Any] = {}
        self._lock = threading.Lock()
        self._resources = {device: load_faiss().StandardGpuResources() for device in self._devices}

    def best(
        self,
        queries: NDArray[np.float32],
        k: int,
        rows: Rows,
        segments: SegmentSource,
        both: bool = False,
    ) -> Ends:
        """Find the k rows at each end in half precision; see `Scan.best`."""
        if k > MOST_RESULTS or not len(rows) or not len(queries):
            return self._cpu.best(queries, k, rows, segments, both)
        import torch

        groups = [(segments(segment_id), indexes) for segment_id, indexes in rows.by_segment()]
        with self._lock:
            for kept in (True, False):
                if not kept:
                    self._kept.clear()
                try:
                    return self._searched(queries, k, rows, groups, both)
                except torch.OutOfMemoryError:
                    logger.warning("the GPU's memory does not suffice%s", "; trying again" if kept else "")
        logger.warning("this search is done by the CPU")
        return self._cpu.best(queries, k, rows, segments, both)

    def scores(
        self,
        queries: NDArray[np.float32],
        rows: Rows,
        segments: SegmentSource,
        query_bits: int | None = None,
    ) -> NDArray[np.float32]:
        """Return all inner products [q, n], which the CPU computes in its own memory; see `Scan.scores`."""
        return self._cpu.scores(queries, rows, segments, query_bits)

    def _searched(
        self,
        queries: NDArray[np.float32],
        k: int,
        rows: Rows,
        groups: Sequence[tuple[Segment, NDArray[np.int64]]],
        both: bool,
    ) -> Ends:
        self._forget({segment.path for segment, _ in groups})

        def run(device: str, share: Sequence[tuple[Segment, NDArray[np.int64]]]) -> Ends:
            ends = Ends(len(queries), k, both)
            for segment, indexes in share:
                for start in range(0, len(indexes), MOST_ROWS):
                    part = indexes[start : start + MOST_ROWS]
                    for sign in (1, -1) if both else (1,):
                        scores, chosen = self._compared(device, segment, queries * np.float32(sign), k, rows, part)
                        ends.add_of_each(sign > 0, scores, chosen)
            return ends

        shares = [groups[number :: len(self._devices)] for number in range(len(self._devices))]
        with ThreadPoolExecutor(len(self._devices)) as executor:  # FAISS's resources are a thread's own
            parts = list(executor.map(run, self._devices, shares))
        return joined_ends(parts, len(queries), k, both)

    def _compared(
        self,
        device: str,
        segment: Segment,
        queries: NDArray[np.float32],
        k: int,
        rows: Rows,
        indexes: NDArray[np.int64],
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and indexes [q, ≤ k + margin] of the best of a segment's rows, which come by position."""
        import torch

        norms = np.maximum(np.linalg.norm(queries, axis=1), np.finfo(np.float32).tiny)
        turned = segment.codec.turned(queries / norms[:, None])
        scales = rows.scales[indexes]
        block = self._block(device, segment, rows.positions[indexes])
        largest = float(scales.max())
        if (scales != largest).any():
            block = block * torch.from_numpy(scales / largest).to(device, torch.float16)[:, None]
        half_queries = torch.from_numpy(turned).to(device, torch.float16)
        count = min(k + _MARGIN, len(indexes), MOST_RESULTS)
        scores, places = _nearest(self._resources[device], half_queries, block.contiguous(), count)
        factors = (norms * largest)[:, None].astype(np.float32)
        return scores.cpu().numpy() * factors, indexes[places.cpu().numpy()]

    def _block(self, device: str, segment: Segment, positions: NDArray[np.int64]) -> Any:
        """Return vectors of a segment on a device, [m, K]; the whole segment is kept if there is room."""
        import torch

        key = (device, segment.path)
        if key not in self._kept:
            if not _room(device, 2 * segment.rows * segment.dimension):
                return _halves(segment, positions).to(device)
            self._kept[key] = _halves(segment, np.arange(segment.rows)).to(device)
        block = self._kept[key]
        if len(positions) == segment.rows:
            return block
        if positions[-1] - positions[0] + 1 == len(positions):
            return block[int(positions[0]) : int(positions[-1]) + 1]
        return block[torch.from_numpy(positions).to(device)]

    def _forget(self, present: set[Path]) -> None:
        """Drop the blocks of segments whose files are gone."""
        for key in [key for key in self._kept if key[1] not in present and not key[1].exists()]:
            del self._kept[key]


def _halves(segment: Segment, positions: NDArray[np.int64]) -> Any:
    """Return the vectors at ascending positions [m], as the codec turned them, half precision [m, K]."""
    import torch

    if segment.codec.holds_halves:
        codes = np.array(segment.selected(positions))  # a copy, because mapped files are read-only
        return torch.from_numpy(codes.view(np.float16))
    halves = torch.empty((len(positions), segment.dimension), dtype=torch.float16)
    start = 0
    for vectors in segment.decoded(positions):
        halves[start : start + len(vectors)] = torch.from_numpy(vectors)
        start += len(vectors)
    return halves


def _room(device: str, size: int) -> bool:
    """Return whether a device has memory for one more block of `size` bytes, and enough left for other work."""
    import torch

    if not device.startswith("cuda"):
        return True
    free, total = torch.cuda.mem_get_info(device)
    return bool(free - size > _LEAST_FREE * total)


def _nearest(resources: Any, queries: Any, vectors: Any, k: int) -> tuple[Any, Any]:
    """Find the k rows of largest inner product with each query.

    Args:
        resources: FAISS's resources of this thread.
        queries, vectors: tensors in half precision, contiguous, [q, K] and [m, K], on one GPU.
        k: number of results that are wanted, at most m.

    Returns:
        Scores, float32 [q, k], and rows, int64 [q, k], on the device of the queries.
    """
    import torch

    faiss = load_faiss()
    scores = torch.empty((len(queries), k), dtype=torch.float32, device=queries.device)
    rows = torch.empty((len(queries), k), dtype=torch.int64, device=queries.device)
    wanted = faiss.GpuDistanceParams()
    wanted.metric = faiss.METRIC_INNER_PRODUCT
    wanted.k = k
    wanted.dims = vectors.shape[1]
    wanted.vectors = faiss.cast_integer_to_void_ptr(vectors.data_ptr())
    wanted.vectorsRowMajor = True
    wanted.vectorType = faiss.DistanceDataType_F16
    wanted.numVectors = len(vectors)
    wanted.queries = faiss.cast_integer_to_void_ptr(queries.data_ptr())
    wanted.queriesRowMajor = True
    wanted.queryType = faiss.DistanceDataType_F16
    wanted.numQueries = len(queries)
    wanted.outDistances = faiss.cast_integer_to_float_ptr(scores.data_ptr())
    wanted.outIndicesType = faiss.IndicesDataType_I64
    wanted.outIndices = faiss.cast_integer_to_void_ptr(rows.data_ptr())
    wanted.device = queries.device.index
    with torch.cuda.device(queries.device):
        torch.cuda.synchronize()  # FAISS works in a stream of its own
        faiss.bfKnn(resources, wanted)
        resources.syncDefaultStreamCurrentDevice()
    return scores, rows
