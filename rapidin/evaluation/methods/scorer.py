"""The protocol of scorers: queries × training samples → scores.

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

StepProgress = Callable[[str, int, int], None]
"""Function that gets a step's name, the number of parts done, and the number of all parts."""


def progress_of_step(on_progress: StepProgress | None, name: str) -> Callable[[int, int], None] | None:
    """Make a function for the progress of one step; None if `on_progress` is None."""
    return None if on_progress is None else lambda done, total: on_progress(name, done, total)


@dataclass(frozen=True, slots=True)
class AskedQuery:
    """A query: a generation whose causes in the training data are wanted.

    Attributes:
        query: text and metadata of the query.
        encoded: token ids and targets of the query, as `StoreModel.prepared` made them.
    """

    query: Query
    encoded: EncodedSample


class TrainingSet:
    """The training samples that are ranked, always in one order.

    Args:
        samples: samples of a store by ascending id, which is the order of `Snapshot.scores`.
        model: the store's model, which encodes them.
    """

    def __init__(self, samples: Sequence[Sample], model: StoreModel) -> None:
        self.samples = samples
        self._model = model

    def __len__(self) -> int:
        return len(self.samples)

    def encoded(self) -> Iterator[EncodedSample]:
        """Token ids and targets of every sample, as the model saw them at ingest.

        Raises:
            RapidinError: a sample cannot be encoded as it was at ingest.
        """
        for sample in self.samples:
            yield self._model.encode_stored(sample)


class Scorer(Protocol):
    """Scores how much each training sample has to do with each query; a larger score means more.

    Attributes:
        name: name of the method in tables, plots and ``--baseline``.
    """

    name: str

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, on_progress: StepProgress | None = None
    ) -> NDArray[np.float32]:
        """Score every training sample for every query.

        Args:
            queries: the q queries.
            training: the n training samples.
            on_progress: function that gets a step's name, the number of parts done, and the number of all parts.

        Returns:
            Scores, float32 [q, n].

        Raises:
            RapidinError: something cannot be scored.
        """
