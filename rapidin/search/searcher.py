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

from rapidin.errors import GradientError, ModelError, RowError, SettingError
from rapidin.gradients import RapidGradEngine, TokenBudget, compute_in_batches
from rapidin.influence import Explainer, TokenQueries
from rapidin.model.fingerprint import check_same, fingerprint
from rapidin.model.generation import generate
from rapidin.model.loading import load_model, load_tokenizer
from rapidin.model.places import absolute_place
from rapidin.results import Hit, Query, SearchResult, TokenResult
from rapidin.search.explaining import SearchExplainer, Tell, generation_tokens
from rapidin.search.options import Options, SearchOptions
from rapidin.search.queries import COMMAND_LINE, query_of_prompt, read_queries
from rapidin.storage import GpuSearch, ScoredSample, Snapshot, Store
from rapidin.text import EncodedSample, Encoder, TextSample
from rapidin.text.chosen import tokens_in_spans

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
            self._load(model, adapter, device, tokens_per_batch, trust_remote_code)
        except BaseException:
            if self._owns_store:
                self.store.close()
            raise

    def _load(
        self,
        model: str | None,
        adapter: str | None,
        device: str,
        tokens_per_batch: int | None,
        trust_remote_code: bool,
    ) -> None:
        """Load tokenizer and model, after making sure that they are the store's."""
        settings = self.store.settings
        moved = {
            name: absolute_place(place, name)
            for name, place in (("model", model), ("adapter", adapter))
            if place is not None
        }
        self._model_settings = settings.model.model_copy(update=moved)
        self._check_fingerprint()
        tokenizer, context_length = load_tokenizer(self._model_settings, trust_remote_code)
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer, settings.text, context_length)
        self._model = load_model(self._model_settings, device, trust_remote_code).model
        self._engine = RapidGradEngine(self._model, settings.parameters, settings.projection)
        self._gpu = GpuSearch.on(device)
        self._budget = budget = TokenBudget(tokens_per_batch, self._engine.device, settings.projection.dimension)
        self._explainer = SearchExplainer(Explainer(self._model, self._engine, budget), self._encoder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model, and of the store if it was opened here."""
        self._engine.close()
        if self._owns_store:
            self.store.close()

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
        prepared = [self._prepared(sample, options) for sample in samples]
        vectors = self._vectors([encoded for _, encoded in prepared])
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
        vectors = TokenQueries(self._engine, self._budget).vectors(query)
        found = self._ends(snapshot, vectors, options, options.k)
        return tuple(
            TokenResult(token.token, token.start, token.end, _hits(best), _hits(worst))
            for token, (best, worst) in zip(generation_tokens(query, self._encoder), found, strict=True)
        )

    def _prepared(self, sample: TextSample, options: SearchOptions) -> tuple[Query, EncodedSample]:
        """Encode a query, after letting the model answer where it has no answer."""
        generated = not sample.has_response
        if generated:
            encoded = self._answered(sample, options.max_new_tokens)
        else:
            # In a chat only the last answer is the generation; the earlier ones are context.
            encoded = self._encoder.encode(sample, sample.response if sample.turns else None)
        spans: tuple[tuple[int, int], ...] = ()
        if options.spans:
            try:
                chosen = tokens_in_spans(encoded, self._encoder.token_spans(encoded), options.spans)
            except SettingError as error:
                if sample.file == COMMAND_LINE:
                    raise
                raise RowError(sample.file, sample.row, str(error), sample.id) from error
            encoded, spans = replace(encoded, targets=chosen.targets), chosen.spans
        query = Query(
            id=sample.id,
            prompt=encoded.prompt,
            generation=encoded.response,
            generated=generated,
            tokens=len(encoded.ids),
            targets=sum(encoded.targets),
            truncated=encoded.truncated,
            metadata=sample.metadata,
            spans=spans,
        )
        return query, encoded

    def _answered(self, sample: TextSample, max_new_tokens: int) -> EncodedSample:
        prompt = self._encoder.encode_prompt(sample)
        room = min(max_new_tokens, self._encoder.max_length - len(prompt))
        answer = generate(self._model, self._tokenizer, prompt, room)
        if not answer.text.strip():
            raise RowError(
                sample.file, sample.row, "the model answers nothing to this prompt: give a generation", sample.id
            )
        # The tokens that the model wrote, which its text, tokenised again, need not give.
        return EncodedSample(
            id=sample.id,
            ids=(*prompt, *answer.ids),
            targets=(False,) * len(prompt) + (True,) * len(answer.ids),
            truncated=False,
            prompt=self._encoder.encode(sample, answer.text).prompt,
            response=answer.text,
        )

    def _vectors(self, samples: list[EncodedSample]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        vectors = np.empty((len(samples), self.store.settings.projection.dimension), dtype=np.float32)
        for positions, batch in compute_in_batches(self._engine, samples, self._budget):
            for row, problem in batch.problems.items():
                raise GradientError(samples[positions[row]].id, f"of the queries: {problem}; ask otherwise")
            vectors[positions] = batch.vectors
        return vectors

    def _check_fingerprint(self) -> None:
        found = fingerprint(self._model_settings)
        if found is None:
            raise ModelError(
                f"model {self._model_settings.model!r} is not in the local cache: fetch it, or name its directory "
                "with --model"
            )
        remedy = "Give the right one with --model and --adapter"
        check_same(self._model_settings, self.store.settings.fingerprint, found, self.store.path, remedy)


def _hits(found: list[ScoredSample]) -> tuple[Hit, ...]:
    return tuple(Hit(rank, scored.score, scored.sample) for rank, scored in enumerate(found, start=1))
