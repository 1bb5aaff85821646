"""A vector source that asks several others and merges what they found, as a search over machines would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np

from rapidin.records import Hit
from rapidin.storage import Found, OpenSource, VectorSource


class MergedSource:
    """The source of all samples that some sources have; no sample is in two of them."""

    def __init__(self, parts: Sequence[VectorSource]) -> None:
        self._parts = parts

    def search(
        self,
        queries: np.ndarray,
        k: int,
        where: Sequence[str] = (),
        largest: bool = True,
        index: str = "exact",
        nprobe: int | None = None,
    ) -> Found:
        return _merged([part.search(queries, k, where, largest, index, nprobe) for part in self._parts], k)

    def search_ends(
        self,
        queries: np.ndarray,
        k: int,
        where: Sequence[str] = (),
        index: str = "exact",
        nprobe: int | None = None,
    ) -> Found:
        return _merged([part.search_ends(queries, k, where, index, nprobe) for part in self._parts], k)


def merged_source(openers: Sequence[OpenSource]) -> OpenSource:
    @contextmanager
    def opened() -> Iterator[VectorSource]:
        with ExitStack() as stack:
            yield MergedSource([stack.enter_context(open_source()) for open_source in openers])

    return opened


def _merged(parts: Sequence[Found], k: int) -> Found:
    index = next((part.index for part in parts if part.index != "exact"), "exact")
    largest = zip(*(part.largest for part in parts), strict=True)
    smallest = zip(*(part.smallest for part in parts), strict=True)
    return Found(
        index,
        [_best(hits, k, sign=-1) for hits in largest],
        [_best(hits, k, sign=1) for hits in smallest],
    )


def _best(parts: Sequence[Sequence[Hit]], k: int, sign: int) -> list[Hit]:
    every = [hit for hits in parts for hit in hits]
    best = sorted(every, key=lambda hit: (sign * hit.estimate, hit.id))[:k]
    return [replace(hit, rank=rank) for rank, hit in enumerate(best, start=1)]
