"""The protocol of vector sources, which answer what a search asks: the k best samples for each query.

A source is one unchanging state of samples and their vectors. `Snapshot` is the source of one store on this
machine. A search that is divided over machines implements the same two methods: it asks each shard for its k best,
and merges the answers by score, then by id. ``tests/storage/vector_source_conformance.py`` has tests that every
source has to pass.

q queries · K numbers in a vector · k results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rapidin.records import Hit


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search in a source.

    Attributes:
        index: ``exact``, or the kind of the index that chose the candidates.
        largest: samples of largest scores for each query, best first; none if they were not wanted.
        smallest: samples of smallest scores for each query, from the smallest up; none if they were not wanted.
    """

    index: str
    largest: list[list[Hit]]
    smallest: list[list[Hit]]

    @property
    def ends(self) -> tuple[list[list[Hit]], list[list[Hit]]]:
        """`largest` and `smallest`."""
        return self.largest, self.smallest


class VectorSource(Protocol):
    """One state of samples and their vectors, in which searches look for the nearest; serves several threads."""

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        where: Sequence[str] = (),
        largest: bool = True,
        index: str = "exact",
        nprobe: int | None = None,
    ) -> Found:
        """Find the k samples of largest, or smallest, inner product with each query, the most extreme first.

        What is found for a query does not depend on the queries beside it.

        Args:
            queries: float32 [q, K].
            k: samples wanted for each query; fewer come back where there are fewer.
            where: filter expressions that a sample must all meet, see `filters`.
            largest: False for the smallest scores, from the smallest up.
            index: ``exact``, the kind of an index, or ``auto``, which means what serves best.
            nprobe: number of lists that index ``ivf`` reads, in place of its own.

        Returns:
            The samples at the end that was asked for; equal scores are ordered by ascending id. An index may miss
            some samples, but those that come back have their exact scores.

        Raises:
            SettingError: k is not positive, a query is not finite, no index is of that kind, or `nprobe` does not
                fit it.
            IndexNotFoundError: there is no index of that kind.
            FilterError: a filter cannot be read or asks for an unknown field.
            StoreMismatchError: the queries are not as long as the vectors.
            StoreError: the vectors or the samples cannot be read, or not all of them.
        """
        ...

    def search_ends(
        self,
        queries: NDArray[np.float32],
        k: int,
        where: Sequence[str] = (),
        index: str = "exact",
        nprobe: int | None = None,
    ) -> Found:
        """Find both ends as `search` does, in one pass over the vectors.

        Raises:
            SettingError, IndexNotFoundError, FilterError, StoreMismatchError, StoreError: as `search`.
        """
        ...


OpenSource: TypeAlias = Callable[[], AbstractContextManager[VectorSource]]
"""Function that opens the newest state, which is closed at the end of a ``with``; every search opens its own."""
