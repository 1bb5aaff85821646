"""The protocol of scans, which compare every row that they are given with every query and approximate nothing.

The order of results is total, by score and then by id, so that it does not depend on how the work was divided.
Implementations are `cpu_scan.CpuScan` and `gpu_scan.GpuScan`; `choosing.scan_on` chooses one.
``tests/storage/scan/test_scan_conformance.py`` has the tests that every scan has to pass.

q queries · n rows · K numbers in a vector · k results.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rapidin.storage.scan.ranking import Ends
from rapidin.storage.vectors import Rows, SegmentSource


class Scan(Protocol):
    """Compares rows with queries exactly; serves several threads."""

    @property
    def outruns_indexes(self) -> bool:
        """Whether this scan is so fast that ``auto`` should use no index, whose candidates the CPU compares."""
        ...

    def best(
        self,
        queries: NDArray[np.float32],
        k: int,
        rows: Rows,
        segments: SegmentSource,
        both: bool = False,
    ) -> Ends:
        """Find the k rows of largest inner product with each query; rows of equal scores by ascending id.

        Args:
            queries: queries, float32 [q, K].
            k: number of results that are wanted for each query; fewer come back if there are fewer rows.
            rows: rows to compare.
            segments: function that gives the segment of a database id.
            both: whether the k rows of smallest inner product are wanted, too.

        Returns:
            Scores and indexes into `rows`.

        Raises:
            StoreCorruptError: a segment is damaged.
            StoreError: a score is beyond single precision.
        """
        ...

    def scores(
        self,
        queries: NDArray[np.float32],
        rows: Rows,
        segments: SegmentSource,
        query_bits: int | None = None,
    ) -> NDArray[np.float32]:
        """Return the inner products [q, n] of every query with every row.

        Args:
            queries: queries, float32 [q, K].
            rows: rows to compare.
            segments: function that gives the segment of a database id.
            query_bits: number of bits to which the numbers of queries may be rounded; see `Codec.prepared`.

        Raises:
            StoreCorruptError, StoreError: as `best`.
        """
        ...
