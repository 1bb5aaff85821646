"""Exact scores of the samples that a search has found, and the tokens and words that they come from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rapidin.attribution import QueryCorrection, SectionDirections, SectionInfluence, TakenAway, target_places
from rapidin.errors import ComputationError, RapidinError
from rapidin.model import ModelParts, StoreModel
from rapidin.records import Hit, Sample, SearchResult, TokenInfluence
from rapidin.search.exact_curvature import ExactCurvature, Tell
from rapidin.settings import Objective, SearchOptions
from rapidin.text import EncodedSample, spans_in_response, words_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    """A sample whose influence was computed: its tokens as the model sees them, and the influence."""

    encoded: EncodedSample
    influence: SectionInfluence


@dataclass(frozen=True, slots=True)
class CorrectedQuery:
    """A query that was corrected by the store's curvature.

    Attributes:
        raw: the query's RapidGrad before the correction, not normalised, float32 [K].
        vector: the corrected RapidGrad, float32 [K].
        correction: the correction, for the query's tokens.
        exact: computation of what the correction takes away with the probes' gradients; None: it is restored from
            the sketch.
        taken: what the correction takes away from the query, from `exact`; None: it is restored.
    """

    raw: NDArray[np.float32]
    vector: NDArray[np.float32]
    correction: QueryCorrection
    exact: ExactCurvature | None = None
    taken: TakenAway | None = None


class SearchExplainer:
    """Orders hits by their exact influence and finds the tokens that it comes from.

    Args:
        model: model of the store.
    """

    def __init__(self, model: StoreModel) -> None:
        self._model = model

    def explained(
        self,
        result: SearchResult,
        query: EncodedSample,
        options: SearchOptions,
        corrected: CorrectedQuery | None,
        objective: Objective,
        tell: Tell | None = None,
    ) -> SearchResult:
        """Explain a result that has more hits than are wanted, and keep the best of them.

        Args:
            result: result of the search by RapidGrads.
            query: query of the search.
            options: options of the search; `k` hits at each end are kept, and `matrices` says whether Eq. 8 is
                computed, too.
            corrected: the query as the store's curvature corrects it, if the scores are influences.
            objective: objective of the query.
            tell: function that is told of progress, or None.

        Raises:
            GradientError: the query's gradient cannot be used.
        """
        with self._model.exclusive(objective) as parts:
            return _Explanation(parts, query, corrected, objective, tell).of(result, options)


class _Explanation:
    """Explains the hits of one query with the parts of a model."""

    def __init__(
        self,
        parts: ModelParts,
        query: EncodedSample,
        corrected: CorrectedQuery | None,
        objective: Objective,
        tell: Tell | None,
    ) -> None:
        self._parts = parts
        self._corrected = corrected
        self._objective = objective
        self._encoder = parts.encoder
        self._explainer = parts.explainer
        self._query = query
        self._tell = tell

    def of(self, result: SearchResult, options: SearchOptions) -> SearchResult:
        """Return a result with exact scores, tokens and words."""
        query, tell = self._query, self._tell
        direction = self._direction()
        known = self._influences([*result.proponents, *result.opponents], direction, tell)
        # Without memory for the gradient, a RapidGrad tells no more than the estimate. A corrected query is a
        # RapidGrad in any case, and products with it are free of the rounding of stored vectors.
        exact = known if direction.exact or self._corrected is not None else {}
        proponents = _ordered(result.proponents, exact, options.k, largest=True)
        opponents = _ordered(result.opponents, exact, options.k, largest=False)
        shown = {hit.id: hit for hit in (*proponents, *opponents)}
        self._add_tokens(shown, known, direction, tell)
        generation: tuple[TokenInfluence, ...] = ()
        if options.matrices:
            self._add_matrices(shown, known, query, direction, tell)
            generation = self._generation_tokens([shown[hit.id] for hit in proponents])
        return replace(
            result,
            proponents=tuple(replace(shown[hit.id], rank=hit.rank) for hit in proponents),
            opponents=tuple(replace(shown[hit.id], rank=hit.rank) for hit in opponents),
            generation_tokens=generation,
            explained=self._way(direction) if known else None,
        )

    def _direction(self) -> SectionDirections:
        if self._corrected is None:
            return self._explainer.direction(self._query)
        asked = self._corrected
        return self._explainer.corrected_direction(
            self._query, self._objective, asked.raw, asked.vector, asked.taken
        )

    def _token_directions(self, whole: SectionDirections) -> Callable[[range], list[SectionDirections]]:
        """Return the function that gives the directions of some target tokens, by their numbers."""
        places = target_places(self._query)
        if self._corrected is None:
            return lambda some: [
                self._explainer.token_direction(self._query, places[number], whole) for number in some
            ]
        asked = self._corrected
        raw = self._parts.token_queries.vectors(self._query, self._objective)
        vectors = asked.correction.corrected(raw, self._objective)

        def of(some: range) -> list[SectionDirections]:
            taken = self._taken_from_tokens(asked, raw[some.start : some.stop], whole)
            return [
                self._explainer.corrected_token_direction(
                    self._query, places[number], self._objective, raw[number], vectors[number], whole, away
                )
                for number, away in zip(some, taken, strict=True)
            ]

        return of

    def _taken_from_tokens(
        self, asked: CorrectedQuery, raw: NDArray[np.float32], whole: SectionDirections
    ) -> Sequence[TakenAway | None]:
        """Compute what the curvature takes away from tokens as it was computed for the whole query.

        Raises:
            ComputationError: memory does not suffice.
        """
        if asked.exact is None or asked.taken is None or not whole.exact:
            return [None] * len(raw)
        found = asked.exact.taken_away(self._parts, raw, self._objective)
        if found is None:
            raise ComputationError(
                "the gradients of the probes do not fit into memory for single tokens of the generation: leave "
                "out --exact-curvature, or the matrices of tokens"
            )
        return found

    def _way(self, direction: SectionDirections) -> str:
        """Say how token influences were computed, see `SearchResult.explained`."""
        way, asked = self._explainer.way, self._corrected
        if asked is None:
            return way if direction.exact else f"{way} along the query's RapidGrad"
        if not direction.exact:
            return f"{way} along the query's corrected RapidGrad"
        by = "its RapidGrad"
        if asked.taken is not None:
            by = "the probes' gradients"
            if asked.taken.restored:
                by += f", but for {asked.taken.restored:,} of {asked.taken.probes:,} by their RapidGrads"
        return f"{way} along the query's gradient, corrected by {by}"

    def _influences(
        self, hits: Sequence[Hit], direction: SectionDirections, tell: Tell | None
    ) -> dict[str, _Known]:
        """Return the exact influences that can be computed, by sample id."""
        encoded: list[EncodedSample] = []
        for hit in {hit.id: hit for hit in hits}.values():
            one = self._encoded(hit)
            if one is not None:
                encoded.append(one)
        influences = self._explainer.influences(
            encoded, direction, lambda done: _told(tell, "exact influences", done, len(encoded))
        )
        known = {}
        for one, influence in zip(encoded, influences, strict=True):
            if influence is None:
                logger.warning("sample %r: its gradient is not finite or is too large, so its score stays", one.id)
            else:
                known[one.id] = _Known(one, influence)
        return known

    def _encoded(self, sample: Sample) -> EncodedSample | None:
        try:
            return self._encoder.encode_stored(sample)
        except RapidinError as error:
            logger.warning("%s; the exact influence of this sample stays unknown", error)
            return None

    def _add_tokens(
        self, shown: dict[str, Hit], known: dict[str, _Known], direction: SectionDirections, tell: Tell | None
    ) -> None:
        """Add the influences of tokens and words to every hit whose influence is known."""
        explained = [known[id] for id in shown if id in known]
        found = self._explainer.token_influences(
            [one.encoded for one in explained],
            direction,
            [one.influence for one in explained],
            lambda done: _told(tell, "tokens", done, len(explained)),
        )
        for one, values in zip(explained, found, strict=True):
            hit = shown[one.encoded.id]
            spans = self._encoder.token_spans(one.encoded)
            tokens = tuple(
                TokenInfluence(hit.text[spans[place][0] : spans[place][1]], *spans[place], value)
                for place, value in zip(target_places(one.encoded), values, strict=True)
            )
            shown[hit.id] = replace(hit, token_influences=tokens, words=words_of(hit.text, tokens))

    def _add_matrices(
        self,
        shown: dict[str, Hit],
        known: dict[str, _Known],
        query: EncodedSample,
        direction: SectionDirections,
        tell: Tell | None,
    ) -> None:
        """Add Eq. 8 to every hit that is explained; the direction of a token is made once and serves all hits."""
        places = target_places(query)
        explained = [known[id] for id in shown if id in known]
        rows: list[list[tuple[float, ...]]] = [[] for _ in explained]
        directions_of = self._token_directions(direction)
        step = self._explainer.directions_together
        if self._corrected is not None and self._corrected.taken is not None:
            step = min(step, self._explainer.taken_together)
        for first in range(0, len(places), step):
            some = range(first, min(first + step, len(places)))
            parts = directions_of(some)

            def told(done: int, some: range = some) -> None:
                of_all = some.start * len(explained) + done * len(some)
                _told(tell, "tokens on tokens", of_all, len(places) * len(explained))

            found = self._explainer.matrices(
                [one.encoded for one in explained], parts, [one.influence for one in explained], told
            )
            for matrix, part in zip(rows, found, strict=True):
                matrix.extend(tuple(row) for row in part)
        for one, matrix in zip(explained, rows, strict=True):
            shown[one.encoded.id] = replace(shown[one.encoded.id], matrix=tuple(matrix))

    def _generation_tokens(self, hits: Sequence[Hit]) -> tuple[TokenInfluence, ...]:
        values = [0.0] * sum(self._query.targets)
        for hit in hits:
            for number, row in enumerate(hit.matrix):
                values[number] += sum(row)
        tokens = generation_tokens(self._query, self._encoder.token_spans(self._query))
        return tuple(replace(token, influence=value) for token, value in zip(tokens, values, strict=True))


def generation_tokens(query: EncodedSample, spans: Sequence[tuple[int, int]]) -> list[TokenInfluence]:
    """Return the target tokens of a query with their places in its generation; influences are 0.

    Args:
        query: query whose tokens are wanted.
        spans: places of its tokens in its prompt and response together.
    """
    places = spans_in_response(query, spans)
    return [
        TokenInfluence(query.response[start:end], start, end, 0.0)
        for (start, end), target in zip(places, query.targets, strict=True)
        if target
    ]


def _ordered(hits: Sequence[Hit], known: dict[str, _Known], k: int, largest: bool) -> list[Hit]:
    """Return the k best hits of one end by score, with the exact influences that are known; ids decide ties."""
    sign = -1 if largest else 1
    scored = [replace(hit, exact=known[hit.id].influence.score) if hit.id in known else hit for hit in hits]
    best = sorted(scored, key=lambda hit: (sign * hit.score, hit.id))[:k]
    return [replace(hit, rank=rank) for rank, hit in enumerate(best, start=1)]


def _told(tell: Tell | None, step: str, done: int, total: int) -> None:
    if tell is not None:
        tell(step, done, total)
