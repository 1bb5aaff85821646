"""Exact influences summed over the states of a model; each level still adds up to the coarser one.

The influence of a sample at several states is the sum of its influences along one direction at each state, and a
direction carries the state's share. So is the influence of a token. With one state the sum has one term.

Shape letters: C states · K projection dimension · g targets of the generation · s targets of the sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from rapidin.attribution.gradients import NamedSample, TokenSample
from rapidin.attribution.influence.directions import Direction
from rapidin.attribution.influence.explainer import ExactInfluence, Explainer
from rapidin.attribution.influence.probe_sums import Probes, TakenAway
from rapidin.attribution.rapidgrads import ONE_STATE, ModelStates, RapidGradEngine, TokenBudget, visiting
from rapidin.settings import Objective


@dataclass(frozen=True, slots=True)
class SectionDirections:
    """The direction of a query, or of one of its tokens, at every state of the model.

    Attributes:
        sections: direction at each state, times the state's share.
    """

    sections: tuple[Direction, ...]

    @property
    def exact(self) -> bool:
        """Whether all directions are gradients, rather than restored from RapidGrads."""
        return all(section.exact for section in self.sections)


@dataclass(frozen=True, slots=True)
class SectionInfluence:
    """A sample's exact influence on a generation.

    Attributes:
        sections: influence at each state, times the state's share.
    """

    sections: tuple[ExactInfluence, ...]

    @property
    def score(self) -> float:
        """The influence."""
        return sum(section.score for section in self.sections)


class SectionExplainer:
    """Computes exact influences at all states of a model; the final model's weights are put back after each call.

    Args:
        model: the engine's model.
        engine: engine of one section.
        budget: budget that the batches begin with.
        states: states of the model.
    """

    def __init__(
        self, model: nn.Module, engine: RapidGradEngine, budget: TokenBudget, states: ModelStates = ONE_STATE
    ) -> None:
        self._states = states
        self._dimension = engine.dimension
        self._one = Explainer(model, engine, budget, directions=len(states.shares))

    @property
    def way(self) -> str:
        """See `Explainer.way`."""
        return self._one.way

    @property
    def directions_together(self) -> int:
        """See `Explainer.directions_together`."""
        return self._one.directions_together

    def direction(self, query: NamedSample) -> SectionDirections:
        """Compute the direction of a query, see `Explainer.direction`."""
        return self._directions(lambda _, share: self._one.direction(query, share))

    @property
    def taken_together(self) -> int:
        """See `Explainer.taken_together`."""
        return self._one.taken_together

    def taken_away(
        self,
        probes: Probes,
        coefficients: Sequence[NDArray[np.float32]],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[TakenAway] | None:
        """Compute what the curvature takes away from queries, with the exact gradients of the probes.

        It takes one forward and backward pass over the probes at each state.

        Args:
            probes: the m probes.
            coefficients: for each state, the coefficients of Ψ's rows for the queries, float32 [q, m], from
                `QueryCorrection.coefficients`.
            on_progress: function that is called with the number of probes that are done, and with the number of
                all, both counted over all states.

        Returns:
            One result for each query; None if memory does not suffice for all of them.
        """
        count, total = len(coefficients), len(probes.again)
        sections: list[list[list[Tensor | None]]] = []
        restored: set[int] = set()
        with visiting(self._states) as place:
            for number, of_state in enumerate(coefficients):
                place(number)

                def told(done: int, number: int = number) -> None:
                    if on_progress is not None:
                        on_progress(number * total + done, count * total)

                here = slice(number * self._dimension, (number + 1) * self._dimension)
                found = self._one.taken_away(probes, of_state * self._row_factor, here, told)
                if found is None:
                    return None
                sections.append(found[0])
                restored.update(found[1])
        return [TakenAway(of_query, total, len(restored)) for of_query in zip(*sections, strict=True)]

    def corrected_direction(
        self,
        query: NamedSample,
        objective: Objective,
        raw: NDArray[np.float32],
        vector: NDArray[np.float32],
        taken: TakenAway | None = None,
    ) -> SectionDirections:
        """Compute the direction of a corrected query, see `Explainer.corrected_direction`.

        Args:
            query: the query.
            objective: objective of the query.
            raw: the query's vector before the correction, as `SectionRunner.queries` computes it [K].
            vector: corrected vector [K].
            taken: what the curvature takes away from the query, from `taken_away`; None: it is restored.
        """

        def of(number: int, share: float) -> Direction:
            before, after = self._section(raw, number), self._section(vector, number)
            away = None if taken is None else taken.sections[number]
            return self._one.corrected_direction(query, objective, before, after, share, away)

        return self._directions(of)

    def token_direction(self, query: NamedSample, place: int, whole: SectionDirections) -> SectionDirections:
        """Compute the part that a target token has in a query's direction, see `Explainer.token_direction`."""
        return self._directions(
            lambda number, share: self._one.token_direction(query, place, whole.sections[number], share)
        )

    def corrected_token_direction(
        self,
        query: NamedSample,
        place: int,
        objective: Objective,
        raw: NDArray[np.float32],
        vector: NDArray[np.float32],
        whole: SectionDirections,
        taken: TakenAway | None = None,
    ) -> SectionDirections:
        """Compute a token's part in a corrected direction, see `Explainer.corrected_token_direction`."""

        def of(number: int, share: float) -> Direction:
            before, after = self._section(raw, number), self._section(vector, number)
            away = None if taken is None else taken.sections[number]
            return self._one.corrected_token_direction(
                query, place, objective, before, after, whole.sections[number], share, away
            )

        return self._directions(of)

    def influences(
        self,
        samples: Sequence[TokenSample],
        direction: SectionDirections,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[SectionInfluence | None]:
        """See `Explainer.influences`; a sample whose gradient is not finite at one state has none."""
        found: list[list[ExactInfluence | None]] = []
        count = len(direction.sections)
        with visiting(self._states) as place:
            for number, section in enumerate(direction.sections):
                place(number)

                def told(done: int, number: int = number) -> None:
                    if on_progress is not None:
                        on_progress((number * len(samples) + done) // count)

                found.append(self._one.influences(samples, section, told))
        return [_joined(one) for one in zip(*found, strict=True)]

    def token_influences(
        self,
        samples: Sequence[NamedSample],
        direction: SectionDirections,
        influences: Sequence[SectionInfluence],
        on_progress: Callable[[int], None] | None = None,
    ) -> list[list[float]]:
        """Compute `Explainer.token_influences` of several samples.

        Args:
            samples: the samples.
            direction: direction of the query.
            influences: influence of each sample on the query.
            on_progress: function that is called with the number of samples that are done.

        Raises:
            ComputationError: see there.
        """
        sums = [np.zeros(sum(sample.targets)) for sample in samples]
        done = 0
        with visiting(self._states) as place:
            for number, section in enumerate(direction.sections):
                place(number)
                for row, (sample, influence) in enumerate(zip(samples, influences, strict=True)):
                    sums[row] += self._one.token_influences(sample, section, influence.sections[number])
                    done += 1
                    if on_progress is not None:
                        on_progress(done // len(direction.sections))
        return [values.tolist() for values in sums]

    def matrices(
        self,
        samples: Sequence[NamedSample],
        directions: Sequence[SectionDirections],
        influences: Sequence[SectionInfluence],
        on_progress: Callable[[int], None] | None = None,
    ) -> list[list[list[float]]]:
        """Compute `Explainer.matrix` of several samples, [g][s] of each.

        Args:
            samples: the samples; their `token_influences` were computed before.
            directions: directions of target tokens of the generation, at most `directions_together`.
            influences: influence of each sample on the whole query.
            on_progress: function that is called with the number of samples that are done.
        """
        sums = [np.zeros((len(directions), sum(sample.targets))) for sample in samples]
        done = 0
        with visiting(self._states) as place:
            for number, _ in enumerate(self._states.shares):
                place(number)
                sections = [direction.sections[number] for direction in directions]
                for row, (sample, influence) in enumerate(zip(samples, influences, strict=True)):
                    sums[row] += self._one.matrix(sample, sections, influence.sections[number])
                    done += 1
                    if on_progress is not None:
                        on_progress(done // len(self._states.shares))
        return [values.tolist() for values in sums]

    def _directions(self, of: Callable[[int, float], Direction]) -> SectionDirections:
        """Compute a direction at every state, by a function that takes the state's number and share."""
        found = []
        with visiting(self._states) as place:
            for number, share in enumerate(self._states.shares):
                place(number)
                found.append(of(number, share))
        return SectionDirections(tuple(found))

    def _section(self, vector: NDArray[np.float32], number: int) -> NDArray[np.float32]:
        """Return a section of a query's vector as its state has it, times the state's share."""
        section = vector[number * self._dimension : (number + 1) * self._dimension]
        return section if len(self._states.shares) == 1 else section * self._row_factor

    @property
    def _row_factor(self) -> np.float32:
        """The factor by which a section of a query's vector is larger than at one state, inverted."""
        return np.float32(1 / math.sqrt(len(self._states.shares)))


def _joined(sections: Sequence[ExactInfluence | None]) -> SectionInfluence | None:
    """Join a sample's influences at all states; None if one of them is unknown."""
    known = tuple(section for section in sections if section is not None)
    return SectionInfluence(known) if len(known) == len(sections) else None
