"""Search: queries are encoded, answered by the model where they have no answer, differentiated and looked up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Self, Unpack

import numpy as np
from numpy.typing import NDArray

from rapidin.influence import Explainer, TokenQueries
from rapidin.results import Hit, SearchResult, TokenResult
from rapidin.search.explaining import SearchExplainer, Tell, generation_tokens
from rapidin.search.options import Options, SearchOptions
from rapidin.search.queries import query_of_prompt, read_queries
from rapidin.search.query_model import QueryModel
from rapidin.storage import GpuSearch, ScoredSample, Snapshot, Store
from rapidin.text import EncodedSample, TextSample

_QUERIES_AT_ONCE = 64


class Searcher:
    """A store and its model, loaded once for any number of searches; threads take turns.

    Args:
        store: the store, or its path.
        model: where the model is now, if it has moved since the store was built.
        adapter: the same of its adapter.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` or ``cuda:0,1``.
        tokens_per_batch: padded tokens computed together; halves itself when memory runs out.
        trust_remote_code: whether the checkpoint's own Python code may run; never remembered.

    Raises:
        StoreError: the store cannot be opened.
        ModelError: the model cannot be loaded.
        FingerprintMismatchError: it is not the model that the store was built with.
    """

    def __init__(
        self,
        store: Store | str | Path,
        *,
        model: str | None = None,
        adapter: str | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._owns_store = not isinstance(store, Store)
        self._lock = threading.RLock()
        self.store = store if isinstance(store, Store) else Store.open(store)
        try:
            self._model = QueryModel(
                self.store,
                model=model,
                adapter=adapter,
                device=device,
                tokens_per_batch=tokens_per_batch,
                trust_remote_code=trust_remote_code,
            )
            explainer = Explainer(self._model.module, self._model.engine, self._model.budget)
            self._explainer = SearchExplainer(explainer, self._model.encoder)
            self._gpu = GpuSearch.on(device)
        except BaseException:
            if self._owns_store:
                self.store.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model, and of the store if it was opened here."""
        self._model.close()
        if self._owns_store:
            self.store.close()

    def count_tokens(self, prompt: str, generation: str | None = None) -> int:
        """Tokens of a query as the model sees it, after it was cut to the store's maximum length.

        Raises:
            RapidinError: as of `search`.
        """
        query = query_of_prompt(prompt, generation, self.store.settings.text)
        encoder = self._model.encoder
        if not query.has_response:
            return len(encoder.encode_prompt(query))
        return len(encoder.encode(query, query.response if query.turns else None).ids)

    def search(
        self,
        prompt: str,
        generation: str | None = None,
        *,
        on_progress: Tell | None = None,
        **options: Unpack[Options],
    ) -> SearchResult:
        """Find the training samples behind one generation.

        Args:
            prompt: what the model was asked; put into the template of the store's rows.
            generation: what it answered; None: the model answers now, greedily.
            on_progress: told of what takes longer: a step, how much of it is done, and of how much.
            options: see `Options`.

        Raises:
            RapidinError: one of its kinds, see `rapidin.errors`.
        """
        wanted = SearchOptions(**options)
        query = query_of_prompt(prompt, generation, self.store.settings.text)
        with self._lock:
            (result,) = self._search([replace(query, id="0")], wanted, on_progress)
        return result

    def search_file(
        self,
        file: str | Path,
        *,
        on_progress: Callable[[int], None] | None = None,
        **options: Unpack[Options],
    ) -> Iterator[SearchResult]:
        """Search for every row of a data file, in its order; rows without a response get the model's own.

        Args:
            file: of the shapes that `ingest` takes.
            on_progress: told the number of queries answered so far.
            options: see `Options`.

        Raises:
            RapidinError: one of its kinds, see `rapidin.errors`.
        """
        wanted = SearchOptions(**options)
        queries = read_queries(Path(file), self.store.settings.text)
        done = 0
        while chunk := list(islice(queries, _QUERIES_AT_ONCE)):
            answers = self._search(chunk, wanted, None)
            while True:
                with self._lock:  # not while the caller looks at a result
                    result = next(answers, None)
                if result is None:
                    break
                yield result
                done += 1
                if on_progress is not None:
                    on_progress(done)

    def _search(
        self, samples: Iterable[TextSample], options: SearchOptions, tell: Tell | None
    ) -> Iterator[SearchResult]:
        prepared = [self._model.prepared(sample, options.max_new_tokens, options.spans) for sample in samples]
        vectors = self._model.vectors([encoded for _, encoded in prepared])
        with self.store.snapshot(self._gpu) as snapshot:
            way = snapshot.way(options.index, options.where, options.nprobe, len(vectors))
            found = self._ends(snapshot, vectors, options, options.candidates)
            by_token = [
                self._by_token(snapshot, encoded, options) if options.tokens else () for _, encoded in prepared
            ]
        for (query, encoded), (best, worst), tokens in zip(prepared, found, by_token, strict=True):
            result = SearchResult(query, _hits(best), _hits(worst), way, tokens)
            if options.rerank and (result.proponents or result.opponents):
                result = self._explainer.explained(result, encoded, options, tell)
            yield result

    def _ends(
        self, snapshot: Snapshot, vectors: NDArray[np.float32], options: SearchOptions, k: int
    ) -> list[tuple[list[ScoredSample], list[ScoredSample]]]:
        """The k proponents, and opponents where they are wanted, of every query."""
        where, index, nprobe = options.where, options.index, options.nprobe
        if options.opponents:
            return list(zip(*snapshot.search_ends(vectors, k, where, index, nprobe), strict=True))
        return [(best, []) for best in snapshot.search(vectors, k, where, index=index, nprobe=nprobe)]

    def _by_token(
        self, snapshot: Snapshot, query: EncodedSample, options: SearchOptions
    ) -> tuple[TokenResult, ...]:
        """What every target token of a query goes back to, in one search for all of them."""
        vectors = TokenQueries(self._model.engine, self._model.budget).vectors(query)
        found = self._ends(snapshot, vectors, options, options.k)
        return tuple(
            TokenResult(token.token, token.start, token.end, _hits(best), _hits(worst))
            for token, (best, worst) in zip(generation_tokens(query, self._model.encoder), found, strict=True)
        )


def _hits(found: list[ScoredSample]) -> tuple[Hit, ...]:
    return tuple(Hit(rank, scored.score, scored.sample) for rank, scored in enumerate(found, start=1))
