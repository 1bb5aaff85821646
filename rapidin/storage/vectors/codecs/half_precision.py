"""Half precision: 16 bits a number, the paper's choice.

NumKong multiplies halves without decoding them. A query is the sum of two vectors of halves: the query in half
precision, and its rounding error, also in half precision. So a score loses no more than single precision does.

n vectors · q queries · m rows of a block · K numbers in a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numkong
import numpy as np
from numpy.typing import NDArray

from rapidin.settings import Bits
from rapidin.storage.vectors.codecs.codec import Codec, PreparedQueries
from rapidin.storage.vectors.codecs.decoded_slices import SlicedQueries
from rapidin.storage.vectors.codecs.faiss_library import load_faiss
from rapidin.storage.vectors.codecs.quantised_queries import tensor_of_bytes

LARGEST_HALF = float(np.finfo(np.float16).max)
SMALLEST_HALF = float(np.finfo(np.float16).smallest_subnormal)
_REST = 2.0**11
"""Factor that the rounding error of a query is multiplied with, because half precision has 11 bits."""
_LARGEST_EXPONENT = 15
"""Power of two below which a query's largest number is brought before it is put into half precision."""


@dataclass(frozen=True)
class HalfPrecision(Codec):
    """Codec of numbers in half precision, divided by a scale of their row."""

    bits: ClassVar[Bits] = 16
    holds_halves: ClassVar[bool] = True
    decodes_beyond: ClassVar[int | None] = 12

    def row_bytes(self, dimension: int) -> int:
        """Return two bytes for each number."""
        return 2 * dimension

    def new_index(self, dimension: int) -> Any:
        """Make an empty scalar quantiser of FAISS; see `Codec.new_index`."""
        faiss = load_faiss()
        return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)

    def encode(
        self, index: Any, vectors: NDArray[np.float32], scales: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Divide vectors by their scales and round them; see `Codec.encode`."""
        return index.sa_encode(vectors / scales[:, None]), scales

    def refusal(self, vector: NDArray[np.float32], scale: float) -> str | None:
        """Tell why the largest number is beyond half precision; see `Codec.refusal`."""
        largest = float(np.abs(vector).max())
        if SMALLEST_HALF <= largest / scale <= LARGEST_HALF:
            return None
        return (
            f"its largest number, {largest:.3g} by the scale {scale:.3g}, is beyond half precision; give a scale "
            "near the largest number, and leave out a zero vector"
        )

    def prepared(self, queries: NDArray[np.float32], query_bits: int | None = None) -> PreparedQueries:  # noqa: ARG002
        """Prepare queries for codes as they lie, or for decoded slices; see `Codec.prepared`."""
        return SlicedQueries(queries) if self.decodes_for(len(queries)) else _HalfPrecisionQueries(queries)

    def _decodes_alike(self, index: Any, mine: Any) -> bool:
        return bool(index.sq.qtype == mine.sq.qtype) and not index.sq.trained.size()


class _HalfPrecisionQueries:
    def __init__(self, queries: NDArray[np.float32]) -> None:
        largest = np.abs(queries).max(axis=1, initial=0, keepdims=True)
        # This needs double precision: single precision has no power of two large enough for the smallest queries.
        self._scales = 2.0 ** (_LARGEST_EXPONENT - np.frexp(largest)[1])
        fitting = (queries * self._scales).astype(np.float32)
        coarse = _converted(fitting, "float16")
        rest = _converted((fitting - _converted(coarse, "float32")) * np.float32(_REST), "float16")
        self._planes = numkong.dots_pack(np.concatenate([coarse, rest]), dtype="float16")

    def scores(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        products = np.asarray(numkong.dots_packed(tensor_of_bytes(codes, "float16"), self._planes))
        coarse, rest = np.split(products.T.astype(np.float64), 2)
        scores: NDArray[np.float32] = ((coarse + rest / _REST) / self._scales).astype(np.float32)
        return scores


def fitting_scales(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Choose scales [n] with which half precision holds vectors [n, K] well, whatever their size.

    The scales are powers of two, mostly 1, so that dividing changes no digit, and vectors that were in half
    precision before come out as they were. The scales of vectors that cannot be stored are 1.
    """
    largest = np.abs(vectors).max(axis=1, initial=0)
    usable = np.isfinite(largest) & (largest > 0)
    well = (largest >= 2.0**-10) & (largest <= 2.0**15)
    exponents = np.frexp(np.where(usable & ~well, largest, np.float32(0.5)))[1]
    # Smaller powers have no inverse in single precision.
    return np.ldexp(np.float32(1), np.maximum(exponents, -125)).astype(np.float32)


def _converted(array: NDArray[Any], kind: Literal["float16", "float32"]) -> NDArray[Any]:
    """Convert numbers from or to half precision, as NumPy does, but thirty times as fast."""
    return np.asarray(numkong.astype(array, kind))
