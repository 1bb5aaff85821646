"""One bit a number: the sign of a rotated coordinate, as RaBitQ keeps it (Gao & Long 2024).

A query is rounded to 8 bits a number and compared as 8 planes of signs. The scores of unrelated vectors have a
standard deviation of ‖query‖‖row‖/√K; rounding the query costs a score a hundredth of it, and the signs three
quarters. Differing bits are counted, so a score is the same to the last bit whatever is compared beside it.

q queries · m rows of a block · K numbers in a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numkong
import numpy as np
from numpy.typing import NDArray

from rapidin.settings import Bits
from rapidin.storage.vectors.codecs.codec import DirectionCodec, PreparedQueries
from rapidin.storage.vectors.codecs.faiss_library import load_faiss
from rapidin.storage.vectors.codecs.quantised_queries import on_grid, tensor_of_bytes, weighted

_QUERY_BITS = 8
"""Number of bits of a query's numbers, and so the number of its planes."""
_FACTOR_BYTES = 8
"""Bytes of the two factors that RaBitQ keeps with each row."""


@dataclass(frozen=True)
class OneBit(DirectionCodec):
    """Codec of the signs of directions, with RaBitQ's factors."""

    bits: ClassVar[Bits] = 1
    gains_from_rabitq: ClassVar[bool] = False

    def row_bytes(self, dimension: int) -> int:
        """Return one bit for each number, and the bytes of the row's factors."""
        return dimension // 8 + _FACTOR_BYTES

    def new_index(self, dimension: int) -> Any:
        """Make an empty RaBitQ index of FAISS; see `Codec.new_index`."""
        faiss = load_faiss()
        index = faiss.IndexRaBitQ(dimension, faiss.METRIC_INNER_PRODUCT)
        index.is_trained = True  # a centre of zeros would mean the same, but take 4·K bytes of each file
        return index

    def prepared(self, queries: NDArray[np.float32], query_bits: int | None = None) -> PreparedQueries:
        """Prepare queries as planes of signs, at most 8; fewer are faster and less exact. See `Codec.prepared`."""
        return _SignQueries(queries, query_bits or _QUERY_BITS)

    def _decodes_alike(self, index: Any, mine: Any) -> bool:  # noqa: ARG002
        return bool(index.is_trained and not index.center.size())


class _SignQueries:
    """Queries as planes of signs: a number of b bits, less (2ᵇ − 1)/2, is the sum of ±2ʲ/2 over b planes."""

    def __init__(self, queries: NDArray[np.float32], bits: int) -> None:
        count, self._dimension = queries.shape
        self._bits = bits
        packed = np.empty((count, bits, self._dimension // 8), np.uint8)
        self._steps = np.empty((count, 1))
        for query, numbers in enumerate(queries):
            whole, step = on_grid(numbers, bits)
            self._steps[query] = step / np.sqrt(self._dimension)
            eight = whole.astype(np.uint8)
            for place in range(bits):  # packbits makes a one of everything that is not zero
                packed[query, place] = np.packbits(eight & 1 << place, bitorder="little")
        planes = tensor_of_bytes(packed.reshape(-1, packed.shape[2]), "uint1")
        self._planes = numkong.hammings_pack(planes, dtype="uint1")

    def scores(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        signs, factors = np.split(codes, [self._dimension // 8], axis=1)
        different = np.asarray(numkong.hammings_packed(tensor_of_bytes(signs, "uint1"), self._planes))
        totals = (2**self._bits - 1) / 2 * self._dimension - weighted(different, 2, self._bits)
        # RaBitQ's second factor turns the product with the signs, which have norm 1, into the product with the
        # vector; its first factor is for distances.
        of_rows = np.ascontiguousarray(factors).view(np.float32)[:, 1]
        scores: NDArray[np.float32] = (totals.T * self._steps * of_rows).astype(np.float32)
        return scores
