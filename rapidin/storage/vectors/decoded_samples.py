"""Samples with decoded vectors, which differ from the original ones by what the codec lost.

m rows · K numbers in a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapidin.records import Sample
from rapidin.storage.vectors.searched_rows import Rows
from rapidin.storage.vectors.segments import SegmentSource


@dataclass(frozen=True, slots=True)
class DecodedSamples:
    """Some samples and their vectors, float32 [m, K]."""

    samples: Sequence[Sample]
    vectors: NDArray[np.float32]


def decoded_vectors(rows: Rows, segments: SegmentSource, dimension: int) -> NDArray[np.float32]:
    """Decode the vectors of rows [m, K], in the coordinates and scale of RapidGrads and in the order of the rows.

    Args:
        rows: rows whose vectors are wanted.
        segments: function that gives the segment with a database id.
        dimension: K.
    """
    vectors = np.empty((len(rows), dimension), np.float32)
    for segment_id, mine in rows.by_segment():
        segment = segments(segment_id)
        found = segment.decode(rows.positions[mine], np.empty((len(mine), dimension), np.float32))
        with np.errstate(over="ignore"):  # an overflow becomes infinite, which all users of vectors refuse
            vectors[mine] = segment.codec.turned_back(found) * rows.scales[mine, None]
    return vectors
