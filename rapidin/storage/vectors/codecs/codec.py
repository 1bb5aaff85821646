"""The protocol of codecs; a codec keeps the numbers of a RapidGrad in few bits.

A store's codec is chosen when the store is created, and each segment records its name. Nothing is trained, so
later samples never drift away from earlier ones. Queries are turned as the vectors are, but never coded.

==================  ====  ============================================  ===========================================
codec               bits  coordinates                                   score of a row
==================  ====  ============================================  ===========================================
fp16                16    half precision, not rotated                   exact inner product with what is stored
hadamard-uniform4   4     rotated; 16 equal steps over ±2.73 standard   times ‖v‖²/⟨v, decoded v⟩, which is the
                          deviations (nearly the best uniform grid)     row's scale: unbiased over rotations
hadamard-rabitq1    1     rotated; the sign (RaBitQ, Gao & Long 2024)   likewise unbiased, by RaBitQ's own factors
==================  ====  ============================================  ===========================================

A new codec is a subclass of `Codec` and an entry in `codec_registry.CODECS`; ``tests/storage/vectors/codecs`` has
the tests that every codec has to pass.

n vectors · q queries · m rows of a block · K numbers in a vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from rapidin.settings import Bits, CodecSettings
from rapidin.storage.vectors.codecs.faiss_library import load_faiss
from rapidin.storage.vectors.codecs.rotation import Rotation

SMALLEST_NORM, LARGEST_NORM = 1e-30, 1e36
"""Bounds of a vector's norm that is kept in single precision, with room for the codec's factor."""


class PreparedQueries(Protocol):
    """Queries prepared for comparison with codes of one codec; several threads may use them."""

    def scores(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return inner products [q, m] with rows given by their codes [m, bytes], without the rows' scales."""
        ...


@dataclass(frozen=True)
class Codec(ABC):
    """A way to store vectors in few bits.

    Attributes:
        name: identity of the codec, which the database records for each segment.
        bits: bits of a coordinate; several codecs may have the same number.
        rotation: map to the coordinates in which the codec keeps vectors.
        gains_from_rabitq: whether an index ``rabitq`` is smaller than the coded vectors themselves.
        holds_halves: whether the codes are the turned vectors in half precision, so that decoding is not needed.
        decodes_beyond: number of queries beyond which torch decodes rows to compare them; None for never.
    """

    name: str
    rotation: Rotation
    bits: ClassVar[Bits]
    gains_from_rabitq: ClassVar[bool] = True
    holds_halves: ClassVar[bool] = False
    decodes_beyond: ClassVar[int | None] = None

    @property
    def settings(self) -> CodecSettings:
        """Return the settings of a store with this codec."""
        return CodecSettings(name=self.name, bits=self.bits)

    @abstractmethod
    def row_bytes(self, dimension: int) -> int:
        """Return the number of bytes of a coded vector of K = `dimension` numbers."""

    @abstractmethod
    def new_index(self, dimension: int) -> Any:
        """Make an empty FAISS index with this coding, ready for codes of K = `dimension` numbers."""

    @abstractmethod
    def encode(
        self, index: Any, vectors: NDArray[np.float32], scales: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Code vectors.

        Args:
            index: an index from `new_index`.
            vectors: [n, K], all of which `refusal` accepts.
            scales: positive numbers [n] that bring the vectors into the range of half precision. Codecs that keep
                norms do not need them.

        Returns:
            Codes [n, bytes], and factors [n] of the rows' scores.
        """

    @abstractmethod
    def refusal(self, vector: NDArray[np.float32], scale: float) -> str | None:
        """Tell why a vector cannot be kept, as the end of a message; None if it can.

        Args:
            vector: finite numbers [K].
            scale: positive scale of the row.
        """

    @abstractmethod
    def prepared(self, queries: NDArray[np.float32], query_bits: int | None = None) -> PreparedQueries:
        """Prepare queries for comparison with codes.

        Args:
            queries: [q, K], as `turned` gives them.
            query_bits: number of bits to which a query's numbers may be rounded, if the codec can save time by it.
                None rounds far below the error of the codes.
        """

    def decodes_for(self, queries: int) -> bool:
        """Tell whether torch decodes rows to compare them with so large a number of queries."""
        return self.decodes_beyond is not None and queries > self.decodes_beyond

    def turned(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map queries [q, K] to the coordinates of the codes."""
        return self.rotation.turned(queries)

    def turned_back(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map decoded vectors [n, K] back to the coordinates of RapidGrads."""
        return self.rotation.turned_back(vectors)

    def codes_offset(self, dimension: int) -> int:
        """Return the offset of the codes in a file of FAISS; it does not depend on the number of rows."""
        return _codes_offset(self, dimension)

    def fits(self, index: Any, dimension: int) -> bool:
        """Tell whether an index that was read from a file has this coding, whatever the number of its rows."""
        mine = self.new_index(dimension)
        here = (type(index), index.metric_type, index.d, index.code_size)
        there = (type(mine), load_faiss().METRIC_INNER_PRODUCT, dimension, mine.code_size)
        return here == there and self._decodes_alike(index, mine)

    @abstractmethod
    def _decodes_alike(self, index: Any, mine: Any) -> bool:
        """Tell whether an index of the right type and size decodes as `mine`, which `new_index` made, does."""


class DirectionCodec(Codec):
    """A codec that keeps the direction of a vector in few bits, and its norm in the row's scale.

    The scale is ‖v‖/⟨u, decoded u⟩ for the turned unit vector u, so that a score is unbiased over rotations.
    """

    def encode(
        self,
        index: Any,
        vectors: NDArray[np.float32],
        scales: NDArray[np.float32],  # noqa: ARG002
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Code the directions of vectors; `scales` are not used. See `Codec.encode`."""
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        units = self.turned((vectors / norms[:, None]).astype(np.float32))
        codes = index.sa_encode(units)
        kept = np.einsum("nk,nk->n", index.sa_decode(codes), units, dtype=np.float64)
        return codes, (norms / kept).astype(np.float32)

    def refusal(self, vector: NDArray[np.float32], scale: float) -> str | None:  # noqa: ARG002
        """Tell why the vector's norm cannot be kept; see `Codec.refusal`."""
        if SMALLEST_NORM <= np.linalg.norm(vector.astype(np.float64)) <= LARGEST_NORM:
            return None
        return "its vector is zero or too large for single precision; leave the sample out"


@cache
def _codes_offset(codec: Codec, dimension: int) -> int:
    index = codec.new_index(dimension)
    row = np.full((1, codec.row_bytes(dimension)), 0xA5, np.uint8)  # a pattern that occurs nowhere else
    index.add_sa_codes(row)
    offset: int = load_faiss().serialize_index(index).tobytes().index(row.tobytes())
    return offset
