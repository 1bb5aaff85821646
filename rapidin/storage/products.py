"""Products of many queries with coded rows: decoded slice by slice, each used by all queries while it is in cache.

torch does the arithmetic: it converts half precision five times as fast as FAISS and NumPy do, and its matrix
products do not need the rows in a copy of their own. It is imported at the first product, so that a store can be
listed or filtered without it.

q queries · m rows of a block · K numbers in a vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapidin.storage.codecs import Codec

SLICE = 2048
"""Numbers of each row that are decoded at a time; with some hundred rows a slice fits a processor's own cache."""

_ROWS_TOGETHER = 16
"""Rows are multiplied in multiples of this: BLAS sums what is left over in another order, and a sample's score
would differ in its last bits with the number of rows beside it."""


class Products:
    """Queries ready for products with coded rows; of one thread, for it has a buffer.

    Args:
        codec: of the rows.
        queries: [q, K], turned as the codec turns them.
        most_rows: of a block.
    """

    def __init__(self, codec: Codec, queries: NDArray[np.float32], most_rows: int) -> None:
        import torch

        self._torch = torch
        self._queries = torch.from_numpy(queries)
        self._codec = codec
        self._width = min(SLICE, queries.shape[1])
        self._decoded = torch.zeros((_whole(most_rows), self._width))
        self._grid: Any = None if codec.bits == 16 else codec.new_index(queries.shape[1], self._width)

    def scores(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Inner products [q, m] with the rows whose codes [m, bytes] are given."""
        torch = self._torch
        total = torch.zeros((_whole(len(codes)), len(self._queries)))
        factors = self._decoded[: _whole(len(codes))]
        decoded = factors[: len(codes)]
        halves = torch.from_numpy(codes.view(np.float16)) if self._codec.bits == 16 else None
        bytes_of_slice = self._codec.row_bytes(self._width)
        for number, start in enumerate(range(0, self._queries.shape[1], self._width)):
            if halves is not None:
                decoded.copy_(halves[:, start : start + self._width])
            else:
                first = number * bytes_of_slice
                self._grid.sa_decode(
                    np.ascontiguousarray(codes[:, first : first + bytes_of_slice]), decoded.numpy()
                )
            total.addmm_(factors, self._queries[:, start : start + self._width].T)
        scores: NDArray[np.float32] = total[: len(codes)].numpy().T
        return scores


def _whole(rows: int) -> int:
    return -(-rows // _ROWS_TOGETHER) * _ROWS_TOGETHER


@contextmanager
def single_threaded() -> Iterator[None]:
    """Have torch start no team of threads in any thread that begins inside; afterwards it is as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
