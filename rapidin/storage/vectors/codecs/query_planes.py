"""Queries as planes: NumKong multiplies small numbers at nearly the speed at which memory gives them.

It does so if both sides have the same form, so a query becomes the weighted sum of a few vectors of the codes' own
form, its planes. Nothing is decoded.

q queries · m rows of a block · K numbers in a vector.
"""

from __future__ import annotations

from typing import Literal

import numkong
import numpy as np
from numpy.typing import NDArray


def on_grid(query: NDArray[np.float32], bits: int) -> tuple[NDArray[np.uint16], float]:
    """Numbers [K] from 0 to 2ᵇ − 1 and a step, so that step·(number − (2ᵇ − 1)/2) is nearly the query [K]."""
    most = 2**bits - 1
    step = 2 * float(np.abs(query).max(initial=0)) / most
    if step == 0:  # the numbers do not matter
        return np.zeros(len(query), np.uint16), step
    numbers = query / np.float64(step)
    numbers += most / 2
    return np.rint(numbers).clip(0, most).astype(np.uint16), step


def weighted(products: NDArray[np.uint32], base: int, planes: int) -> NDArray[np.float64]:
    """Products [m, q·planes] summed over the planes of each query [m, q]; plane j counts baseʲ."""
    weights = float(base) ** np.arange(planes)
    totals: NDArray[np.float64] = products.reshape(len(products), products.shape[1] // planes, planes) @ weights
    return totals


def tensor_of_bytes(array: NDArray[np.uint8], kind: Literal["float16", "uint4", "uint1"]) -> numkong.Tensor:
    """Bytes [m, bytes], wherever they lie, as numbers of another kind; NumKong counts small ones by the byte."""
    width = 2 if kind == "float16" else 1
    rows, row_bytes = array.shape
    strides = (array.strides[0], width)
    return numkong.from_pointer(array.ctypes.data, (rows, row_bytes // width), kind, strides=strides, owner=array)
