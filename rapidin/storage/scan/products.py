"""Inner products of queries with coded rows where they lie: nothing is decoded.

NumKong multiplies numbers of 16, 4 and 1 bit at nearly the speed at which memory gives them, if both sides have
the same form. So a query becomes the sum of a few vectors of the codes' own form, its planes:

=====  ======================================================  =============================================
bits   planes of a query                                       what a score loses
=====  ======================================================  =============================================
16     half precision, and the rest in half precision          no more than single precision does
4      12 bits a number, in 3 planes of 4                      6e-4 of ‖query‖‖row‖/√K
1      8 bits a number, in 8 planes                            a hundredth of that, beside the signs' three
                                                               quarters of it
=====  ======================================================  =============================================

‖query‖‖row‖/√K is the deviation of the scores of unrelated vectors. Numbers of 4 and 1 bit are multiplied as
integers, so a score is the same to the last bit whatever is compared beside it.

q queries · m rows of a block · K numbers in a vector.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numkong
import numpy as np
from numpy.typing import NDArray

from rapidin.storage.vectors import Codec

_NIBBLES = 3
"""Planes of a query against 4 bits."""
_MIDDLE = (16**_NIBBLES - 1) / 2
"""Of the grid of such a query."""
SIGNS = 8
"""Planes of a query against 1 bit."""
_REST = 2.0**11
"""By which what half precision leaves of a number is multiplied: half precision has 11 bits."""
_LARGEST_EXPONENT = 15
"""Of a query's largest number, at least a half times that power of two, before it is put into half precision."""


class PreparedQueries(Protocol):
    """Queries made ready to be compared with codes of one codec; serves several threads."""

    def scores(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Inner products [q, m] with the rows whose codes [m, bytes] are given, but for the rows' own scales."""
        ...


def prepared(codec: Codec, queries: NDArray[np.float32], signs: int = SIGNS) -> PreparedQueries:
    """Queries [q, K], turned as `codec` turns them, for rows of that codec.

    Args:
        codec: of the rows.
        queries: turned ones.
        signs: bits of a query's number against rows of 1 bit, at most 8; fewer are faster and less exact.
    """
    if codec.bits == 16:
        return _AgainstHalfPrecision(queries)
    if codec.bits == 4:
        return _AgainstSteps(queries, *codec.grid(queries.shape[1]))
    return _AgainstSigns(queries, signs)


class _AgainstHalfPrecision:
    def __init__(self, queries: NDArray[np.float32]) -> None:
        largest = np.abs(queries).max(axis=1, initial=0, keepdims=True)
        # Double precision, for single precision has no power of two large enough for the smallest queries.
        self._scales = 2.0 ** (_LARGEST_EXPONENT - np.frexp(largest)[1])
        fitting = (queries * self._scales).astype(np.float32)
        coarse = _converted(fitting, "float16")
        rest = _converted((fitting - _converted(coarse, "float32")) * np.float32(_REST), "float16")
        self._planes = numkong.dots_pack(np.concatenate([coarse, rest]), dtype="float16")

    def scores(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        products = np.asarray(numkong.dots_packed(_tensor(codes, "float16"), self._planes)).T.astype(np.float64)
        coarse, rest = np.split(products, 2)
        scores: NDArray[np.float32] = ((coarse + rest / _REST) / self._scales).astype(np.float32)
        return scores


class _AgainstSteps:
    """A code c of 4 bits stands for start + step·c; a query's number c of 12 bits for own step·(c − 4095/2).

    The rounded query is only multiplied with c − 15/2; the middle of the grid meets the query as it is, for there
    all roundings would add up.
    """

    def __init__(self, queries: NDArray[np.float32], start: float, step: float) -> None:
        count, dimension = queries.shape
        sums = queries.sum(axis=1, keepdims=True, dtype=np.float64)
        rounded_sums = np.empty((count, 1))
        self._steps = np.empty((count, 1))
        packed = np.empty((count * _NIBBLES + 1, dimension // 2), np.uint8)
        packed[-1] = 0x11  # a plane of ones gives the sums of rows
        for query, numbers in enumerate(queries):
            whole, own_step = _on_grid(numbers, 4 * _NIBBLES)
            self._steps[query] = step * own_step
            rounded_sums[query] = own_step * (whole.sum() - _MIDDLE * dimension)
            even, odd = whole[0::2], whole[1::2]
            for place in range(_NIBBLES):
                low, high = even >> 4 * place & 15, odd >> 4 * place & 15
                packed[query * _NIBBLES + place] = low | high << 4
        self._offsets = (start + step * 15 / 2) * sums - step * 15 / 2 * rounded_sums
        self._planes = numkong.dots_pack(_tensor(packed, "uint4"), dtype="uint4")

    def scores(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        products = np.asarray(numkong.dots_packed(_tensor(codes, "uint4"), self._planes))
        totals = _weighted(products[:, :-1], 16, _NIBBLES)
        totals -= _MIDDLE * products[:, -1:].astype(np.float64)
        scores: NDArray[np.float32] = (totals.T * self._steps + self._offsets).astype(np.float32)
        return scores


class _AgainstSigns:
    """A query's number of b bits, less (2ᵇ − 1)/2, is the sum of ±2ʲ/2: signs, to be compared with the row's."""

    def __init__(self, queries: NDArray[np.float32], bits: int) -> None:
        count, self._dimension = queries.shape
        self._bits = bits
        packed = np.empty((count, bits, self._dimension // 8), np.uint8)
        self._steps = np.empty((count, 1))
        for query, numbers in enumerate(queries):
            whole, step = _on_grid(numbers, bits)
            self._steps[query] = step / np.sqrt(self._dimension)
            eight = whole.astype(np.uint8)
            for place in range(bits):  # whatever is not zero counts as one
                packed[query, place] = np.packbits(eight & 1 << place, bitorder="little")
        self._planes = numkong.hammings_pack(_tensor(packed.reshape(-1, packed.shape[2]), "uint1"), dtype="uint1")

    def scores(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        signs, factors = np.split(codes, [self._dimension // 8], axis=1)
        different = np.asarray(numkong.hammings_packed(_tensor(signs, "uint1"), self._planes))
        totals = (2**self._bits - 1) / 2 * self._dimension - _weighted(different, 2, self._bits)
        # RaBitQ's second factor leads from the product with the signs, of norm 1, to that with the vector; its
        # first is for distances.
        of_rows = np.ascontiguousarray(factors).view(np.float32)[:, 1]
        scores: NDArray[np.float32] = (totals.T * self._steps * of_rows).astype(np.float32)
        return scores


def _converted(array: NDArray[Any], kind: Literal["float16", "float32"]) -> NDArray[Any]:
    """As NumPy converts numbers from and to half precision, but thirty times as fast."""
    return np.asarray(numkong.astype(array, kind))


def _on_grid(query: NDArray[np.float32], bits: int) -> tuple[NDArray[np.uint16], float]:
    """Numbers [K] from 0 to 2ᵇ − 1 and a step, so that step·(number − (2ᵇ − 1)/2) is nearly the query."""
    most = 2**bits - 1
    step = 2 * float(np.abs(query).max(initial=0)) / most
    if step == 0:  # the numbers do not matter
        return np.zeros(len(query), np.uint16), step
    numbers = query / np.float64(step)
    numbers += most / 2
    return np.rint(numbers).clip(0, most).astype(np.uint16), step


def _weighted(products: NDArray[np.uint32], base: int, planes: int) -> NDArray[np.float64]:
    """Products [m, q·planes] summed over the planes of each query, plane j counting baseʲ, [m, q]."""
    weights = float(base) ** np.arange(planes)
    totals: NDArray[np.float64] = products.reshape(len(products), -1, planes) @ weights
    return totals


def _tensor(array: NDArray[np.uint8], kind: Literal["float16", "uint4", "uint1"]) -> numkong.Tensor:
    """Bytes [m, bytes], wherever they lie, as numbers of another kind; NumKong counts small ones by the byte."""
    width = 2 if kind == "float16" else 1
    rows, row_bytes = array.shape
    strides = (array.strides[0], width)
    return numkong.from_pointer(array.ctypes.data, (rows, row_bytes // width), kind, strides=strides, owner=array)
