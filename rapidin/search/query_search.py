"""The search of some queries: encode and differentiate them, look up the nearest samples, and explain these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from rapidin.attribution import QueryCorrection, TakenAway
from rapidin.errors import SettingError
from rapidin.model import StoreCorrections, StoreModel
from rapidin.records import Measure, SearchResult, TokenResult
from rapidin.search.exact_curvature import ExactCurvature, Tell
from rapidin.search.explaining import CorrectedQuery, SearchExplainer, generation_tokens
from rapidin.settings import Objective, SearchOptions
from rapidin.storage import Found, OpenSource, VectorSource
from rapidin.text import EncodedSample, TextSample


class QuerySearch:
    """Searches with one model in one store; serves several threads, which take turns at the model only.

    Args:
        open_source: function that opens the newest state of the store's samples and vectors.
        model: model of the store.
        corrections: corrections of queries by the store's curvature.
    """

    def __init__(self, open_source: OpenSource, model: StoreModel, corrections: StoreCorrections) -> None:
        self._corrections = corrections
        self._open_source = open_source
        self._model = model
        self._explainer = SearchExplainer(model)
        self._measure: Measure = "cosine" if model.gradient.normalise_layers else "inner product"

    def results(
        self, samples: Sequence[TextSample], options: SearchOptions, tell: Tell | None
    ) -> Iterator[SearchResult]:
        """Search for some queries together; between two results only memory is held, and no source is open.

        Args:
            samples: queries.
            options: options of all queries.
            tell: function that is told of progress, or None.

        Raises:
            RapidinError: one of its kinds, see `rapidin.errors`.
        """
        correction = self._corrections.of(options.measure)
        if options.exact_curvature and correction is None:
            raise SettingError(
                f"--exact-curvature needs a curvature: compute it with '{self._corrections.command}', or leave "
                "--exact-curvature out"
            )
        objective = self._objective(options, correction)
        prepared = [self._model.prepared(sample, options.max_new_tokens, options.spans) for sample in samples]
        encoded_queries = [encoded for _, encoded in prepared]
        raw = self._model.vectors(encoded_queries, objective, raw=correction is not None)
        vectors = raw if correction is None else correction.corrected(raw, objective)
        with self._open_source() as source:
            found = _ends(source, self._model.placed(vectors, objective), options, options.candidates)
            by_token = [
                self._by_token(source, encoded, options, correction, objective) if options.by_token else ()
                for _, encoded in prepared
            ]
        exact = None
        taken: Iterator[TakenAway | None] = repeat(None)
        if correction is not None and options.exact_curvature and any(map(any, found.ends)):
            exact = ExactCurvature(self._corrections, correction, tell)
            taken = exact.of_all(self._model, raw, objective)
        for number, ((query, encoded), (best, worst), tokens) in enumerate(
            zip(prepared, zip(*found.ends, strict=True), by_token, strict=True)
        ):
            away = next(taken)
            result = SearchResult(query, tuple(best), tuple(worst), found.index, self._measure, by_token=tokens)
            result = replace(result, objective=objective)
            if correction is not None:
                result = replace(result, measure="influence", curvature=correction.version)
            corrected = None
            if options.rerank and (result.proponents or result.opponents):
                if correction is not None:
                    corrected = CorrectedQuery(raw[number], vectors[number], correction, exact, away)
                result = self._explainer.explained(result, encoded, options, corrected, objective, tell)
            away = corrected = None  # they may be as large as the model, and the next group needs the memory
            yield result

    def _objective(self, options: SearchOptions, correction: QueryCorrection | None) -> Objective:
        """Choose the objective of the queries.

        Raises:
            SettingError: it differs from the store's, and the scores are cosines.
        """
        gradient = self._model.gradient
        if correction is None and options.objective not in (None, *gradient.objectives):
            raise SettingError(
                f"--objective {options.objective} needs --measure influence: without it a query is compared by "
                f"the store's own objective, {gradient.default_objective}"
            )
        return options.objective or gradient.default_objective

    def _by_token(
        self,
        source: VectorSource,
        query: EncodedSample,
        options: SearchOptions,
        correction: QueryCorrection | None,
        objective: Objective,
    ) -> tuple[TokenResult, ...]:
        """Find the samples behind every target token of a query, in one search for all tokens."""
        vectors = self._model.token_vectors(query, objective, raw=correction is not None)
        if correction is not None:
            vectors = correction.corrected(vectors, objective)
        tokens = generation_tokens(query, self._model.token_spans(query))
        found = _ends(source, self._model.placed(vectors, objective), options, options.k)
        return tuple(
            TokenResult(token.token, token.start, token.end, tuple(best), tuple(worst))
            for token, (best, worst) in zip(tokens, zip(*found.ends, strict=True), strict=True)
        )


def _ends(source: VectorSource, vectors: NDArray[np.float32], options: SearchOptions, k: int) -> Found:
    """Find the k proponents, and opponents if they are wanted, of every query."""
    search = source.search_ends if options.opponents else source.search
    return search(vectors, k, options.where, index=options.index, nprobe=options.nprobe)
