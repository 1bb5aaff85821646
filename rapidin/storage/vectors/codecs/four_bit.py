"""Uniform grid: 4 bits a number, which is nearly as good as half precision in a quarter of its bytes.

A coordinate of a rotated vector is nearly Gaussian, whatever the gradient was, so one grid fits every vector. The
best grid for Gaussian numbers (FAISS's ``QT_4bit_tqmse``) has a fifth less error. But steps of equal size can be
multiplied as integers, FAISS codes them ten times as fast, and both errors vanish beside the projection's
(benchmarks/RESULTS.md).

A query is rounded to 12 bits a number and compared as 3 planes of 4 bits. The scores of unrelated vectors have a
standard deviation of ‖query‖‖row‖/√K, and the rounding costs a score 6e-4 of it. Integers are multiplied, so a
score is the same to the last bit whatever is compared beside it. Another grid needs another name of the codec,
because stores know codecs by name.

q queries · m rows of a block · K numbers in a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numkong
import numpy as np
from numpy.typing import NDArray

from rapidin.settings import Bits
from rapidin.storage.vectors.codecs.codec import DirectionCodec, PreparedQueries
from rapidin.storage.vectors.codecs.faiss_library import load_faiss
from rapidin.storage.vectors.codecs.quantised_queries import on_grid, tensor_of_bytes, weighted

_NIBBLES = 3
"""Number of planes of a query."""
_MIDDLE = (16**_NIBBLES - 1) / 2
"""Middle of the grid of a query's numbers."""


@dataclass(frozen=True)
class UniformGrid(DirectionCodec):
    """Codec of directions on a grid of 16 equal steps.

    Attributes:
        edge: end of the grid, in standard deviations of a coordinate.
    """

    edge: float
    bits: ClassVar[Bits] = 4

    def row_bytes(self, dimension: int) -> int:
        """Return half a byte for each number."""
        return dimension // 2

    def new_index(self, dimension: int) -> Any:
        """Make an empty scalar quantiser of FAISS with the grid's ends; see `Codec.new_index`."""
        faiss = load_faiss()
        kind = faiss.ScalarQuantizer.QT_4bit_uniform
        index = faiss.IndexScalarQuantizer(dimension, kind, faiss.METRIC_INNER_PRODUCT)
        edge = np.full((1, dimension), self.edge / np.sqrt(dimension), np.float32)
        index.train(np.concatenate([-edge, edge]))
        return index

    def prepared(self, queries: NDArray[np.float32], query_bits: int | None = None) -> PreparedQueries:  # noqa: ARG002
        """Prepare queries as planes of 4 bits; see `Codec.prepared`."""
        return _GridQueries(queries, *_grid(self, queries.shape[1]))

    def _decodes_alike(self, index: Any, mine: Any) -> bool:
        numbers = load_faiss().vector_to_array
        same_grid = np.array_equal(numbers(index.sq.trained), numbers(mine.sq.trained))
        return bool(index.sq.qtype == mine.sq.qtype and same_grid)


@cache
def _grid(codec: UniformGrid, dimension: int) -> tuple[float, float]:
    """Return the number that code 0 stands for, and the size of a step; FAISS decodes to the middle of a step."""
    index = codec.new_index(dimension)  # this variable keeps the memory of FAISS's vectors alive
    first, extent = load_faiss().vector_to_array(index.sq.trained).tolist()
    return first + extent / 30, extent / 15


class _GridQueries:
    """Queries as planes: a row's code c means start + step·c, a query's number c means its own step·(c − 4095/2).

    The rounded query is only multiplied with c − 15/2. The middle of the grid is multiplied with the query itself,
    because all rounding errors would add up there.
    """

    def __init__(self, queries: NDArray[np.float32], start: float, step: float) -> None:
        count, dimension = queries.shape
        sums = queries.sum(axis=1, keepdims=True, dtype=np.float64)
        rounded_sums = np.empty((count, 1))
        self._steps = np.empty((count, 1))
        packed = np.empty((count * _NIBBLES + 1, dimension // 2), np.uint8)
        packed[-1] = 0x11  # a plane of ones gives the sums of the rows
        for query, numbers in enumerate(queries):
            whole, own_step = on_grid(numbers, 4 * _NIBBLES)
            self._steps[query] = step * own_step
            rounded_sums[query] = own_step * (whole.sum() - _MIDDLE * dimension)
            even, odd = whole[0::2], whole[1::2]
            for place in range(_NIBBLES):
                low, high = even >> 4 * place & 15, odd >> 4 * place & 15
                packed[query * _NIBBLES + place] = low | high << 4
        self._offsets = (start + step * 15 / 2) * sums - step * 15 / 2 * rounded_sums
        self._planes = numkong.dots_pack(tensor_of_bytes(packed, "uint4"), dtype="uint4")

    def scores(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        products = np.asarray(numkong.dots_packed(tensor_of_bytes(codes, "uint4"), self._planes))
        totals = weighted(products[:, :-1], 16, _NIBBLES)
        totals -= _MIDDLE * products[:, -1:].astype(np.float64)
        scores: NDArray[np.float32] = (totals.T * self._steps + self._offsets).astype(np.float32)
        return scores
