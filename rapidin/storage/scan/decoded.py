"""Products of many queries with rows in half precision: decoded by slices, each used by all while it is in cache.

torch does the arithmetic: it decodes four times as fast as FAISS and NumPy do. It is imported at the first
product, so that a store can be listed or filtered without it.

q queries · m rows of a block · K numbers in a vector.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLICE = 2048
"""Numbers of each row that are decoded at a time; with some hundred rows a slice fits a processor's own cache."""

ONE_SCAN = threading.Lock()
"""Held by every scan, since torch's number of threads is a setting of the whole process."""

_TOGETHER = 16
"""Rows and queries are multiplied in multiples of this: BLAS sums what is left over in another order, and a score
would differ in its last bits with the row's place and the number of rows and queries beside it."""


class SlicedQueries:
    """Queries cut into the slices that decoded rows come in; serves several threads, each with memory of its own.

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
        """Inner products [q, m] with the rows whose codes [m, 2·K] are given."""
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
        """What this thread decodes so many rows into, [rows, slice]."""
        import torch

        memory = getattr(self._of_thread, "memory", None)
        if memory is None or len(memory) < rows:
            memory = self._of_thread.memory = torch.zeros((rows, self._width))
        return memory[:rows]


def settle_torch() -> None:
    """Have torch decide how many threads it starts for the calling one, while no scan has set them to one.

    It decides at a thread's first computation, once for all, and in the midst of a scan that would be one.
    """
    import torch

    with ONE_SCAN:
        torch.get_num_threads()


class _Shown:
    """An array's memory as NumPy's array interface describes it, but without saying that it is read-only.

    torch has no read-only tensors, so `torch.from_numpy` warns of every read-only array. Mapped codes are such and
    stay it: for a private mapping that may be written to, the system sets memory aside. DLPack, the other way to
    share memory, refuses read-only arrays in NumPy 1 and 2.0.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array  # stays as long as what is made of this
        described = array.__array_interface__
        self.__array_interface__ = {**described, "data": (described["data"][0], False)}


def _tensor_of(array: NDArray[Any]) -> Any:
    """A tensor of an array's memory, only to be read from."""
    import torch

    return torch.from_numpy(np.asarray(_Shown(array)))


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
