"""Codecs: how the numbers of a RapidGrad are kept, in 16, 4 or 1 bit each; fixed when a store is made.

A coordinate of a rotated vector is nearly Gaussian, whatever the gradient was, so a fixed grid fits every vector:
nothing is trained, and later samples never drift away from earlier ones. The query is rotated in the same way and
never coded itself.

=====  ====================================================  ==============================================
bits   coordinates                                           score of a row
=====  ====================================================  ==============================================
16     half precision, as they are                           exact inner product with what is stored
4      rotated; 16 equal steps over ±2.73 standard           times ‖v‖²/⟨v, decoded v⟩, kept as the row's
       deviations (nearly the best uniform grid)             scale: unbiased over rotations
1      rotated; the sign (RaBitQ, Gao & Long 2024)           unbiased likewise, by the factors RaBitQ keeps
=====  ====================================================  ==============================================

Why a uniform grid, when the best grid for Gaussian numbers (FAISS's ``QT_4bit_tqmse``) errs by a fifth less: its
steps can be multiplied as integers (`products`), FAISS codes it ten times as fast, and both errors vanish beside
the projection's (benchmarks/RESULTS.md).

n vectors · K numbers in a vector · q queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import DependencyError, SettingError, StoreFormatError
from rapidin.settings import Bits, CodecSettings

_GRID_EDGE = 2.73
"""Standard deviations at the ends of the 4-bit grid."""
_ROTATION_SEED = 1
_ROTATED_ALONE = 4


@dataclass(frozen=True, slots=True)
class Codec:
    """One way of keeping vectors.

    Attributes:
        name: in the database, for each segment.
        bits: per coordinate.
        rotated: whether vectors and queries are rotated first.
    """

    name: str
    bits: Bits
    rotated: bool

    def row_bytes(self, dimension: int) -> int:
        """Bytes of a coded vector of K = `dimension` numbers."""
        factors = 8 if self.bits == 1 else 0  # RaBitQ's two of each row
        return dimension * self.bits // 8 + factors

    def new_index(self, dimension: int) -> Any:
        """An empty FAISS index with this coding, ready for codes of K = `dimension` numbers."""
        faiss = load_faiss()
        if self.bits == 1:
            index = faiss.IndexRaBitQ(dimension, faiss.METRIC_INNER_PRODUCT)
            index.is_trained = True  # a centre of zeros would say the same, but take 4·K bytes of each file
            return index
        kinds = {16: faiss.ScalarQuantizer.QT_fp16, 4: faiss.ScalarQuantizer.QT_4bit_uniform}
        index = faiss.IndexScalarQuantizer(dimension, kinds[self.bits], faiss.METRIC_INNER_PRODUCT)
        if self.bits == 4:
            edge = np.full((1, dimension), _GRID_EDGE / np.sqrt(dimension), np.float32)
            index.train(np.concatenate([-edge, edge]))
        return index

    def grid(self, dimension: int) -> tuple[float, float]:
        """What code 0 of 4 bits stands for, and how much each step adds; FAISS decodes to the middle of a step."""
        return _grid(self, dimension)

    def codes_offset(self, dimension: int) -> int:
        """Where the codes begin in a file of FAISS, whatever their number."""
        return _codes_offset(self, dimension)

    def fits(self, index: Any, dimension: int) -> bool:
        """Whether an index that was read from a file has this coding, whatever the number of its rows."""
        faiss = load_faiss()
        mine = self.new_index(dimension)
        if (type(index), index.metric_type, index.d, index.code_size) != (
            type(mine),
            faiss.METRIC_INNER_PRODUCT,
            dimension,
            mine.code_size,
        ):
            return False
        if self.bits == 1:
            return index.is_trained and not index.center.size()
        same_grid = np.array_equal(faiss.vector_to_array(index.sq.trained), faiss.vector_to_array(mine.sq.trained))
        return bool(index.sq.qtype == mine.sq.qtype and same_grid)

    def encode(
        self, index: Any, vectors: NDArray[np.float32], scales: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Codes of vectors, and what their scores are to be multiplied with.

        Args:
            index: of `new_index`.
            vectors: [n, K], none of them zero.
            scales: [n], by which half precision divides the vectors; the others use their norms.

        Returns:
            Codes [n, bytes] and scales [n].
        """
        if self.bits == 16:
            return index.sa_encode(vectors / scales[:, None]), scales
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        units = rotate((vectors / norms[:, None]).astype(np.float32))
        codes = index.sa_encode(units)
        kept = np.einsum("nk,nk->n", index.sa_decode(codes), units, dtype=np.float64)
        return codes, (norms / kept).astype(np.float32)

    def turned(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Queries [q, K] as the codes are compared with."""
        return rotate(queries) if self.rotated else queries

    def turned_back(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Decoded vectors [n, K] in the coordinates of RapidGrads."""
        return _rotation(vectors.shape[1]).reverse_transform(vectors) if self.rotated else vectors


@cache
def _grid(codec: Codec, dimension: int) -> tuple[float, float]:
    index = codec.new_index(dimension)  # named, for FAISS's vectors die with it
    first, extent = load_faiss().vector_to_array(index.sq.trained).tolist()
    return first + extent / 30, extent / 15


@cache
def _codes_offset(codec: Codec, dimension: int) -> int:
    index = codec.new_index(dimension)
    row = np.full((1, codec.row_bytes(dimension)), 0xA5, np.uint8)  # which stands nowhere else
    index.add_sa_codes(row)
    offset: int = load_faiss().serialize_index(index).tobytes().index(row.tobytes())
    return offset


CODECS: dict[int, Codec] = {
    16: Codec("fp16", 16, False),
    4: Codec("hadamard-uniform4", 4, True),
    1: Codec("hadamard-rabitq1", 1, True),
}


def codec_settings(bits: int) -> CodecSettings:
    """Settings of the codec with that many bits.

    Raises:
        SettingError: there is none.
    """
    codec = CODECS.get(bits)
    if codec is None:
        raise SettingError(f"--bits {bits} cannot be used: give one of {', '.join(map(str, CODECS))}")
    return CodecSettings(bits=codec.bits)


def fitting_scales(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales [n] with which half precision holds vectors [n, K] well, whatever their size.

    They are powers of two, mostly 1, so that dividing changes no digit, and vectors that were in half precision
    before come out as they were. Those of vectors that cannot be stored are 1.
    """
    largest = np.abs(vectors).max(axis=1, initial=0)
    usable = np.isfinite(largest) & (largest > 0)
    well = (largest >= 2.0**-10) & (largest <= 2.0**15)
    exponents = np.frexp(np.where(usable & ~well, largest, np.float32(0.5)))[1]
    # Smaller powers have no inverse in single precision.
    return np.ldexp(np.float32(1), np.maximum(exponents, -125)).astype(np.float32)


def codec_named(name: str) -> Codec:
    """The codec of that name.

    Raises:
        StoreFormatError: there is none.
    """
    for codec in CODECS.values():
        if codec.name == name:
            return codec
    raise StoreFormatError(f"vectors coded as {name!r} are unknown here; upgrade rapidin")


def rotate(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Three rounds of random signs and a Hadamard transform: an orthogonal map of rows [n, K], K a power of 2."""
    faiss = load_faiss()
    threads = faiss.omp_get_max_threads()
    if len(vectors) <= _ROTATED_ALONE:  # a team would keep the cores busy for a while, waiting for more to do
        faiss.omp_set_num_threads(1)
    rotated: NDArray[np.float32] = _rotation(vectors.shape[1]).apply(np.ascontiguousarray(vectors))
    faiss.omp_set_num_threads(threads)
    return rotated


@cache
def _rotation(dimension: int) -> Any:
    return load_faiss().HadamardRotation(dimension, _ROTATION_SEED)


def load_faiss() -> Any:
    """The faiss module.

    Raises:
        DependencyError: it is not installed, or too old.
    """
    try:
        import faiss
    except ImportError as error:
        raise DependencyError(
            "faiss is not installed: pip install 'rapidin[cpu]' (or 'rapidin[gpu]' with an NVIDIA GPU)"
        ) from error
    if not hasattr(faiss, "HadamardRotation"):
        raise DependencyError(
            f"faiss {faiss.__version__} is too old: pip install -U faiss-cpu (or faiss-gpu with an NVIDIA GPU)"
        )
    return faiss
