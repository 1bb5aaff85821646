"""The search of some queries: encode and differentiate them, look up the nearest samples, and explain these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rapidin.model import StoreModel
from rapidin.records import SearchResult, TokenResult
from rapidin.search.explaining import SearchExplainer, Tell, generation_tokens
from rapidin.settings import SearchOptions
from rapidin.storage import Found, Scan, Snapshot, Store
from rapidin.text import EncodedSample, TextSample


class QuerySearch:
    """Searches with one model in one store; serves several threads, which take turns at the model only.

    Args:
        store: is searched.
        model: of the store.
        scan: scan that compares vectors where a search is exact.
    """

    def __init__(self, store: Store, model: StoreModel, scan: Scan) -> None:
        self._store = store
        self._model = model
        self._scan = scan
        self._explainer = SearchExplainer(model)

    def results(
        self, samples: Sequence[TextSample], options: SearchOptions, tell: Tell | None
    ) -> Iterator[SearchResult]:
        """Search for some queries together; nothing but memory is held between two results.

        Args:
            samples: the queries.
            options: of all of them.
            tell: told of progress.

        Raises:
            RapidinError: one of its kinds.
        """
        prepared = [self._model.prepared(sample, options.max_new_tokens, options.spans) for sample in samples]
        vectors = self._model.vectors([encoded for _, encoded in prepared])
        with self._store.snapshot(self._scan) as snapshot:
            found = _ends(snapshot, vectors, options, options.candidates)
            by_token = [
                self._by_token(snapshot, encoded, options) if options.by_token else () for _, encoded in prepared
            ]
        for (query, encoded), (best, worst), tokens in zip(
            prepared, zip(*found.ends, strict=True), by_token, strict=True
        ):
            result = SearchResult(query, tuple(best), tuple(worst), found.index, by_token=tokens)
            if options.rerank and (result.proponents or result.opponents):
                result = self._explainer.explained(result, encoded, options, tell)
            yield result

    def _by_token(
        self, snapshot: Snapshot, query: EncodedSample, options: SearchOptions
    ) -> tuple[TokenResult, ...]:
        """What every target token of a query goes back to, in one search for all of them."""
        vectors = self._model.token_vectors(query)
        tokens = generation_tokens(query, self._model.token_spans(query))
        found = _ends(snapshot, vectors, options, options.k)
        return tuple(
            TokenResult(token.token, token.start, token.end, tuple(best), tuple(worst))
            for token, (best, worst) in zip(tokens, zip(*found.ends, strict=True), strict=True)
        )


def _ends(snapshot: Snapshot, vectors: NDArray[np.float32], options: SearchOptions, k: int) -> Found:
    """The k proponents, and opponents where they are wanted, of every query."""
    search = snapshot.search_ends if options.opponents else snapshot.search
    return search(vectors, k, options.where, index=options.index, nprobe=options.nprobe)
