"""Queries in small numbers: NumKong multiplies these nearly as fast as memory can be read.

Both sides need the same form, so a query becomes the weighted sum of a few vectors in the form of the codes, which
are its planes. Nothing is decoded.

q queries · m rows of a block · K numbers in a vector.
"""

from __future__ import annotations

from typing import Literal

import numkong
import numpy as np
from numpy.typing import NDArray


def on_grid(query: NDArray[np.float32], bits: int) -> tuple[NDArray[np.uint16], float]:
    """Return numbers [K] from 0 to 2ᵇ − 1 and a step: step·(number − (2ᵇ − 1)/2) is nearly the query [K]."""
    most = 2**bits - 1
    step = 2 * float(np.abs(query).max(initial=0)) / most
    if step == 0:  # then every number stands for zero
        return np.zeros(len(query), np.uint16), step
    numbers = query / np.float64(step)
    numbers += most / 2
    return np.rint(numbers).clip(0, most).astype(np.uint16), step


def weighted(products: NDArray[np.uint32], base: int, planes: int) -> NDArray[np.float64]:
    """Sum products [m, q·planes] over the planes of each query, [m, q]; plane j has the weight baseʲ."""
    weights = float(base) ** np.arange(planes)
    totals: NDArray[np.float64] = products.reshape(len(products), products.shape[1] // planes, planes) @ weights
    return totals


def tensor_of_bytes(array: NDArray[np.uint8], kind: Literal["float16", "uint4", "uint1"]) -> numkong.Tensor:
    """View bytes [m, bytes] as numbers of another kind, without a copy; NumKong packs small numbers into bytes."""
    width = 2 if kind == "float16" else 1
    rows, row_bytes = array.shape
    strides = (array.strides[0], width)
    return numkong.from_pointer(array.ctypes.data, (rows, row_bytes // width), kind, strides=strides, owner=array)
