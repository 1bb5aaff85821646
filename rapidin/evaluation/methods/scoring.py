"""What every scorer is given and what it gives back: queries × training samples → scores.

Shape letters: q queries · n training samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rapidin.model import StoreModel
from rapidin.records import Query, Sample
from rapidin.text import EncodedSample

Tell = Callable[[str, int, int], None]
"""Told a step's name, how much of it is done, and of how much."""


def step_of(tell: Tell | None, name: str) -> Callable[[int, int], None] | None:
    """Reports of one step: told how much of it is done, and of how much."""
    return None if tell is None else lambda done, total: tell(name, done, total)


@dataclass(frozen=True, slots=True)
class AskedQuery:
    """A generation whose training samples are asked for.

    Attributes:
        query: its text and metadata.
        encoded: its token ids and targets, as `StoreModel.prepared` made them.
    """

    query: Query
    encoded: EncodedSample


class TrainingSet:
    """The training samples that are ranked, always in the same order.

    Args:
        samples: of a store, by ascending id, the order of `Snapshot.scores`.
        model: the store's model, which encodes them.
    """

    def __init__(self, samples: Sequence[Sample], model: StoreModel) -> None:
        self.samples = samples
        self._model = model

    def __len__(self) -> int:
        return len(self.samples)

    def encoded(self) -> Iterator[EncodedSample]:
        """Every sample's token ids and targets, as the model saw them at ingest.

        Raises:
            RapidinError: a sample cannot be encoded as it was then.
        """
        for sample in self.samples:
            yield self._model.encode_stored(sample)


class Scorer(Protocol):
    """Says how much each training sample has to do with each query; the larger, the more.

    Attributes:
        name: as tables, plots and ``--baseline`` have it.
    """

    name: str

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, tell: Tell | None = None
    ) -> NDArray[np.float32]:
        """Score every training sample for every query.

        Args:
            queries: q of them.
            training: n samples.
            tell: told of progress.

        Returns:
            float32 [q, n].

        Raises:
            RapidinError: what cannot be scored.
        """
