"""Computing whole RapidGrads, which have a section for each state of the model.

A section is what the engine computes: the RapidGrad that a state has alone. With C states a row that is stored is
the concatenation of its sections, times 1/√C, so that it has norm 1 if its sections have. If rows have two
objectives, the engine gives two sections for each state, and those of one objective are put together. A section
of a query is multiplied by √C times the state's share instead. So the inner product of a query with a row is the
mean of the sections' inner products, weighted by the shares (TracIn, Pruthi et al. 2020, arXiv 2002.08484).
Probes are not scaled. With one state all of these factors are 1, and nothing is multiplied.

Shape letters: b batch · C states · K projection dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rapidin.attribution.gradients import Differentiated, FisherDraw, TokenSample
from rapidin.attribution.rapidgrads.batch_runner import BatchRunner
from rapidin.attribution.rapidgrads.model_states import ModelStates, visiting
from rapidin.attribution.rapidgrads.rapidgrad_engine import RapidGradBatch

Key = TypeVar("Key")


class SectionRunner:
    """Computes samples at every state of a model.

    Args:
        batches: runner that computes one section, at the state that is in place.
        states: states of the model.
    """

    def __init__(self, batches: BatchRunner, states: ModelStates) -> None:
        self._batches = batches
        self._states = states

    def blocks(
        self, blocks: Iterable[tuple[Key, Sequence[TokenSample], FisherDraw | None] | None]
    ) -> Iterator[tuple[Key, RapidGradBatch]]:
        """Compute block after block, see `BatchRunner.blocks`.

        If there are several states, a block may hold more samples than fit into a batch, and each block is
        complete when it is handed over. The weights of the last state stay in place.
        """
        if len(self._states.shares) == 1:
            yield from self._at_one_state(blocks)
            return
        for block in blocks:
            if block is not None:
                key, samples, draw = block
                yield key, self.block(samples, draw)

    def block(self, samples: Sequence[TokenSample], draw: FisherDraw | None = None) -> RapidGradBatch:
        """Compute the rows, or probes, of a block of samples; see `BatchRunner.block`.

        A sample that fails at one state is a problem, which names the state. The weights of the last state stay in
        place.

        Args:
            samples: samples of the block, the longest first.
            draw: draw whose probes are computed instead of RapidGrads.
        """
        sections = []
        problems: dict[int, str] = {}
        for number, name in enumerate(self._states.names):
            self._states.place(number)
            section = self._batches.block(samples, draw)
            sections.append(section.vectors)
            for position, problem in section.problems.items():
                problems.setdefault(position, _named(problem, name))
        joined = np.concatenate(sections, axis=1) if draw is not None else self._joined_row(sections)
        return RapidGradBatch(joined, problems)

    def queries(self, samples: Sequence[TokenSample], raw: Differentiated | None = None) -> RapidGradBatch:
        """Compute the RapidGrads of queries; errors of the model are not caught.

        The weights of the final model are put back.

        Args:
            samples: any number of queries.
            raw: quantity whose gradients are projected without normalisation, see `RapidGradEngine.compute`.
        """
        sections, problems = self._sections(samples, raw)
        return RapidGradBatch(joined_query(sections, self._states), problems)

    def rows(self, samples: Sequence[TokenSample]) -> RapidGradBatch:
        """Compute the rows of training samples; errors of the model are not caught.

        The weights of the final model are put back.

        Args:
            samples: any number of samples.
        """
        sections, problems = self._sections(samples, None)
        return RapidGradBatch(self._joined_row(sections), problems)

    def _joined_row(self, sections: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Join what rows have at each state, so that the numbers of one objective lie together, float32 [b, K]."""
        if len(sections) == 1:
            return sections[0]
        count, objectives = len(sections[0]), self._batches.objectives
        parted = [section.reshape(count, objectives, -1) for section in sections]
        return np.stack(parted, axis=2).reshape(count, -1) * np.float32(1 / math.sqrt(len(sections)))

    def _sections(
        self, samples: Sequence[TokenSample], raw: Differentiated | None
    ) -> tuple[list[NDArray[np.float32]], dict[int, str]]:
        """Compute the sections [b, K/C] of samples at each state, and problems by position of the sample."""
        sections = []
        problems: dict[int, str] = {}
        with visiting(self._states) as place:
            for number, name in enumerate(self._states.names):
                place(number)
                section = np.empty((len(samples), 0), np.float32)
                for positions, batch in self._batches.rapidgrads(samples, raw):
                    if not section.shape[1]:
                        section = np.empty((len(samples), batch.vectors.shape[1]), np.float32)
                    section[positions] = batch.vectors
                    for row, problem in batch.problems.items():
                        problems.setdefault(positions[row], _named(problem, name))
                sections.append(section)
        return sections, problems

    def _at_one_state(
        self, blocks: Iterable[tuple[Key, Sequence[TokenSample], FisherDraw | None] | None]
    ) -> Iterator[tuple[Key, RapidGradBatch]]:
        (name,) = self._states.names
        self._states.place(0)
        if not name:
            yield from self._batches.blocks(blocks)
            return
        for key, batch in self._batches.blocks(blocks):
            problems = {position: _named(problem, name) for position, problem in batch.problems.items()}
            yield key, RapidGradBatch(batch.vectors, problems)


def joined_query(sections: Sequence[NDArray[np.float32]], states: ModelStates) -> NDArray[np.float32]:
    """Join the sections [b, K/C] of queries to vectors [b, K] whose products with rows are weighted by shares."""
    if len(sections) == 1:
        return sections[0]
    root = math.sqrt(len(sections))
    weighted = [section * np.float32(root * share) for section, share in zip(sections, states.shares, strict=True)]
    return np.concatenate(weighted, axis=1)


def _named(problem: str, state: str) -> str:
    """Add the name of the state to a problem of a sample, if the model has several states."""
    return f"{problem}, at {state}" if state else problem
