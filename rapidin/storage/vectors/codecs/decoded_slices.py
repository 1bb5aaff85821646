"""Products of many queries with rows in half precision: a slice of each row is decoded once for all of them.

torch does the arithmetic, because it decodes four times as fast as FAISS and NumPy do. It is imported when queries
are prepared, so that a store can be listed or filtered without it.

q queries · m rows of a block · K numbers in a vector.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLICE = 2048
"""Number of coordinates that are decoded at a time; a slice of some hundred rows fits a processor's own cache."""

_TOGETHER = 16
"""Numbers of rows and queries are padded to multiples of this. BLAS would sum a remainder in another order, so
that the last bits of a score would depend on the row's place and on the number of other rows and queries."""


class SlicedQueries:
    """Queries cut into slices like those of decoded rows. Several threads may use them; each has its own memory.

    The scores are the same to the last bit only if torch computes with one thread.

    Args:
        queries: [q, K].
    """

    def __init__(self, queries: NDArray[np.float32]) -> None:
        import torch

        self._count, dimension = queries.shape
        self._width = min(SLICE, dimension)
        whole = torch.zeros((_whole(self._count), dimension))
        whole[: self._count] = _tensor_of(queries)
        slices = whole.T.reshape(dimension // self._width, self._width, len(whole))
        self._slices = [part.contiguous() for part in slices]
        self._of_thread = threading.local()

    def scores(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return inner products [q, m] with the rows whose codes [m, 2·K] are given."""
        import torch

        factors = self._memory(_whole(len(codes)))
        total = torch.zeros((len(factors), _whole(self._count)))
        halves = _tensor_of(codes.view(np.float16))
        for part, of_queries in zip(halves.tensor_split(len(self._slices), dim=1), self._slices, strict=True):
            factors[: len(codes)].copy_(part)
            total.addmm_(factors, of_queries)
        scores: NDArray[np.float32] = total[: len(codes), : self._count].numpy().T
        return scores

    def _memory(self, rows: int) -> Any:
        """Return the memory [rows, slice] that this thread decodes rows into."""
        import torch

        memory = getattr(self._of_thread, "memory", None)
        if memory is None or len(memory) < rows:
            memory = self._of_thread.memory = torch.zeros((rows, self._width))
        return memory[:rows]


class _Shown:
    """An array's memory as NumPy's array interface describes it, but without the mark that it is read-only.

    torch has no read-only tensors, so `torch.from_numpy` warns about every read-only array. Mapped codes stay
    read-only, because the system would set memory aside for a private mapping that can be written to.
    DLPack, the other way to share memory, refuses read-only arrays in NumPy 1 and 2.0.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array  # keeps the memory alive as long as the tensor
        described = array.__array_interface__
        self.__array_interface__ = {**described, "data": (described["data"][0], False)}


def _tensor_of(array: NDArray[Any]) -> Any:
    """Make a tensor that shares an array's memory; it must only be read."""
    import torch

    return torch.from_numpy(np.asarray(_Shown(array)))


def _whole(count: int) -> int:
    return -(-count // _TOGETHER) * _TOGETHER
