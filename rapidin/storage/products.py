"""Products of many queries with coded rows: decoded slice by slice, each used by all queries while it is in cache.

torch does the arithmetic: it decodes four times as fast as FAISS and NumPy do. It is imported at the first
product, so that a store can be listed or filtered without it.

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


_TOGETHER = 16
"""Rows and queries are multiplied in multiples of this: BLAS sums what is left over in another order, and a score
would differ in its last bits with the row's place and the number of rows and queries beside it."""


class SlicedQueries:
    """Queries cut into the slices that decoded rows come in; serves several threads.

    Args:
        codec: of the rows, of 16 or 4 bits.
        queries: [q, K], turned as the codec turns them.
    """

    def __init__(self, codec: Codec, queries: NDArray[np.float32]) -> None:
        import torch

        self.codec = codec
        self.count, dimension = queries.shape
        self.width = min(SLICE, dimension)
        whole = torch.zeros((_whole(self.count), dimension))
        whole[: self.count] = torch.from_numpy(queries)
        slices = whole.T.reshape(dimension // self.width, self.width, len(whole))
        self._offsets: Any = 0.0
        if codec.bits == 4:
            # A step c of the grid stands for start + step·c, so the start is left to the sum of the query.
            start, step = codec.grid(dimension)
            self._offsets = start * slices.sum(dim=(0, 1), dtype=torch.float64).float()
            # Of each byte the low half comes first; a slice is decoded into all low halves, then all high ones.
            slices = step * torch.cat([slices[:, 0::2], slices[:, 1::2]], dim=1)
        self._slices = [part.contiguous() for part in slices]

    def scores(self, codes: NDArray[np.uint8], decoded: Any) -> NDArray[np.float32]:
        """Inner products [q, m] with the rows whose codes [m, bytes] are given.

        Args:
            codes: of the rows.
            decoded: `working_memory` for at least m rows, for the use of this call.
        """
        import torch

        total = torch.zeros((_whole(len(codes)), _whole(self.count)))
        factors = decoded[: _whole(len(codes)), : self.width]
        decoded = factors[: len(codes)]
        packed = torch.from_numpy(codes.view(np.float16) if self.codec.bits == 16 else codes)
        for part, of_queries in zip(packed.tensor_split(len(self._slices), dim=1), self._slices, strict=True):
            if self.codec.bits == 16:
                decoded.copy_(part)
            else:
                half = self.width // 2
                decoded[:, :half].copy_(part & 15)
                decoded[:, half:].copy_(part >> 4)
            total.addmm_(factors, of_queries)
        scores: NDArray[np.float32] = (total[: len(codes)] + self._offsets)[:, : self.count].numpy().T
        return scores


def working_memory(rows: int) -> Any:
    """What `SlicedQueries.scores` decodes up to so many rows into."""
    import torch

    return torch.zeros((_whole(rows), SLICE))


def _whole(count: int) -> int:
    return -(-count // _TOGETHER) * _TOGETHER


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
