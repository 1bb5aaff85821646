"""The model of a store, loaded once: it answers, encodes and differentiates what is asked about."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rapidin.attribution import BatchRunner, RapidGradEngine, TokenBudget
from rapidin.errors import GradientError, ModelError, RowError, SettingError
from rapidin.model.borrowed import HeldNetwork
from rapidin.model.fingerprints import check_same, fingerprint
from rapidin.model.generation import generate
from rapidin.model.loading import Tokenizer, load_model, load_tokenizer
from rapidin.model.locating import absolute_place
from rapidin.records import Query
from rapidin.search import COMMAND_LINE
from rapidin.settings import ModelSettings, Part
from rapidin.storage import Store, settle_torch
from rapidin.text import EncodedSample, Encoder, TextSample, tokens_in_spans


class QueryModel:
    """A store's model with its tokenizer, ready to turn queries into RapidGrads; for one thread at a time.

    Args:
        store: the store; it is not closed here.
        model: where the model is now, if it has moved since the store was built; or the network itself, see
            `rapidin.model.borrowed`.
        tokenizer: of a network that is given; None: the one at the model's place is loaded.
        adapter: where the adapter is now, if it has moved.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` or ``cuda:0,1``.
        tokens_per_batch: padded tokens computed together; halves itself when memory runs out.
        trust_remote_code: whether the checkpoint's own Python code may run; never remembered.

    Raises:
        ModelError: the model cannot be loaded.
        FingerprintMismatchError: it is not the model that the store was built with.
        SettingError: a tokenizer without a network, or an adapter's place with one.

    Attributes:
        lock: held in every `turn`; for the thread that has it, taking it again is free.
        settings: of the model, with the places where it is now.
        tokenizer: of the model.
        encoder: text → token ids, as at ingest.
        module: the network, in evaluation mode.
        parameters: the traced ones.
        projection: of their gradients, the store's.
        engine: makes these gradients.
        budget: budget that batches begin with.
        tokens_per_batch: as given; for other checkpoints of the same model.
        trust_remote_code: as given; for other checkpoints of the same model.
    """

    def __init__(
        self,
        store: Store,
        *,
        model: str | nn.Module | None = None,
        tokenizer: Tokenizer | None = None,
        adapter: str | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        settings = store.settings
        self.trust_remote_code = trust_remote_code
        self.lock = threading.RLock()
        self._of_thread = threading.local()
        self._held: HeldNetwork | None = None
        if isinstance(model, nn.Module):
            if adapter is not None:
                raise SettingError(
                    "the network that was given has its adapter on it: leave out the adapter's place"
                )
            self.settings: ModelSettings = settings.model
            self._held = HeldNetwork(model, store.path, settings)
        elif tokenizer is not None:
            raise SettingError("a tokenizer goes with a network that is given: leave it out, or give the network")
        else:
            places = (("model", model), ("adapter", adapter))
            moved = {name: absolute_place(place, name) for name, place in places if place is not None}
            self.settings = settings.model.model_copy(update=moved)
            self._check_fingerprint(store)
        try:
            context_length = self._held.context_length if self._held else None
            if tokenizer is None:
                tokenizer, context_length = load_tokenizer(self.settings, trust_remote_code)
            self.tokenizer = tokenizer
            self.encoder = Encoder(self.tokenizer, settings.text, context_length)
            held = self._held
            if held is not None:
                for sample in store.list(limit=1):
                    self.encoder.encode_stored(sample)  # raises where the tokenizer is another
            self.module = (
                load_model(self.settings, device, trust_remote_code).model if held is None else held.module
            )
            self.parameters = settings.parameters
            self.projection = settings.projection
            self.engine = RapidGradEngine(self.module, self.parameters, self.projection)
        except BaseException:
            if self._held is not None:
                self._held.close()
            raise
        self.tokens_per_batch = tokens_per_batch
        self.budget = TokenBudget.for_device(tokens_per_batch, self.engine.device, self.projection.dimension)
        self._batches = BatchRunner(self.engine, self.budget)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model; a network that was given is as it was before."""
        with self.lock:
            self.engine.close()
            if self._held is not None:
                self._held.close()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the model and its encoder to oneself, as whoever calls any of the methods must."""
        if not getattr(self._of_thread, "settled", False):
            settle_torch()
            self._of_thread.settled = True
        with self.lock:
            yield

    def prepared(
        self, sample: TextSample, max_new_tokens: int, spans: Sequence[Part] = ()
    ) -> tuple[Query, EncodedSample]:
        """Encode a query, after letting the model answer where it has no answer.

        Args:
            sample: the query.
            max_new_tokens: longest answer that the model may write.
            spans: parts of the generation that alone are asked about, see `rapidin.settings.Options`.

        Raises:
            SettingError: a span of a query from the command line does not occur in the generation.
            RowError: the same of a file's row, or a row cannot be used.
        """
        generated = not sample.has_response
        if generated:
            encoded = self._answered(sample, max_new_tokens)
        else:
            # In a chat only the last answer is the generation; the earlier ones are context.
            encoded = self.encoder.encode(sample, sample.response if sample.turns else None)
        asked: tuple[tuple[int, int], ...] = ()
        if spans:
            try:
                chosen = tokens_in_spans(encoded, self.encoder.token_spans(encoded), spans)
            except SettingError as error:
                if sample.file == COMMAND_LINE:
                    raise
                raise RowError(sample.file, sample.row, str(error), sample.id) from error
            encoded, asked = replace(encoded, targets=chosen.targets), chosen.spans
        query = Query(
            id=sample.id,
            prompt=encoded.prompt,
            generation=encoded.response,
            generated=generated,
            tokens=len(encoded.ids),
            targets=sum(encoded.targets),
            truncated=encoded.truncated,
            metadata=sample.metadata,
            spans=asked,
        )
        return query, encoded

    def _answered(self, sample: TextSample, max_new_tokens: int) -> EncodedSample:
        prompt = self.encoder.encode_prompt(sample)
        room = min(max_new_tokens, self.encoder.max_length - len(prompt))
        answer = generate(self.module, self.tokenizer, prompt, room)
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
            prompt=self.encoder.encode(sample, answer.text).prompt,
            response=answer.text,
        )

    def vectors(self, samples: Sequence[EncodedSample]) -> NDArray[np.float32]:
        """RapidGrads of queries, float32 [q, K].

        Raises:
            GradientError: a query's gradient is zero or not finite.
        """
        vectors = np.empty((len(samples), self.projection.dimension), dtype=np.float32)
        for positions, batch in self._batches.rapidgrads(samples):
            for row, problem in batch.problems.items():
                raise GradientError(samples[positions[row]].id, f"of the queries: {problem}; ask otherwise")
            vectors[positions] = batch.vectors
        return vectors

    def _check_fingerprint(self, store: Store) -> None:
        found = fingerprint(self.settings)
        if found is None:
            raise ModelError(
                f"model {self.settings.model!r} is not in the local cache: fetch it, or name its directory "
                "with --model"
            )
        remedy = "Give the right one with --model and --adapter"
        check_same(self.settings, store.settings.fingerprint, found, store.path, remedy)
