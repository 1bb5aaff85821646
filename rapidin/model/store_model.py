"""The model of a store, loaded once: it answers queries, encodes texts and computes their gradients."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rapidin.attribution import (
    ONE_STATE,
    BatchRunner,
    RapidGradEngine,
    SectionExplainer,
    SectionRunner,
    TokenBudget,
    TokenQueries,
)
from rapidin.errors import GradientError, RapidinError, RowError, SettingError
from rapidin.model.checkpoints import CheckpointWeights
from rapidin.model.generation import generate
from rapidin.model.identity import check_checkpoints, checked_settings, with_checkpoints
from rapidin.model.loading import load_model, make_encoder
from rapidin.model.networks import BorrowedNetwork
from rapidin.records import Query, Sample
from rapidin.settings import ModelSettings, Objective, Part
from rapidin.storage import Store
from rapidin.support import named_line, own_torch_modes
from rapidin.text import EncodedSample, Encoder, TextSample, Tokenizer, tokens_in_spans


@dataclass(frozen=True, slots=True)
class ModelParts:
    """The parts that a `StoreModel` computes with; they may be used inside `StoreModel.exclusive` only.

    Attributes:
        module: the network, in evaluation mode, with the weights of the store's model.
        encoder: encoder that turns text into token ids, as at ingest.
        engine: engine of the gradients of the traced parameters, and of RapidGrads, or of one section of them.
            Its rows have the one objective that the parts were asked for.
        budget: limit of the tokens that are computed together, to begin with.
        runner: runner that computes RapidGrads in batches that fit into memory, at all checkpoints.
        explainer: explainer that computes exact influences, at all checkpoints.
        token_queries: queries of single target tokens, which remember how much fitted into memory before.
    """

    module: nn.Module
    encoder: Encoder
    engine: RapidGradEngine
    budget: TokenBudget
    runner: SectionRunner
    explainer: SectionExplainer
    token_queries: TokenQueries


class StoreModel:
    """A store's model with its tokenizer.

    It serves one thread at a time, and any number of threads may call it: every method waits for its turn.

    Args:
        store: the store; it is not closed here.
        model: directory or hub id of the model, if it has moved since the store was built; or the network itself,
            see `rapidin.model.networks.borrowed`.
        tokenizer: tokenizer of the network that is given; None to load the tokenizer from the model's place.
        adapter: directory or hub id of the adapter, if it has moved.
        checkpoints: directories of all of the store's checkpoints, in their order, if they have moved.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` or ``cuda:0,1``.
        tokens_per_batch: number of padded tokens computed together; it is halved when memory runs out.
        trust_remote_code: whether the checkpoint's own Python code may run; it is never remembered.

    Raises:
        ModelError: the model cannot be loaded.
        FingerprintMismatchError: it is not the model that the store was built with.
        SettingError: a tokenizer was given without a network, or an adapter's place with one.

    Attributes:
        lock: lock that every method holds. An application takes it while it uses a network that it has lent; a
            thread that holds it may take it again.
        settings: settings of the model, with its present places.
        tokenizer: the model's tokenizer.
        traced: the traced parameters.
        gradient: settings of the gradients that the store's vectors were made from.
        projection: the store's projection of their gradients.
        device: the device of the first traced parameter.
        tokens_per_batch: value of the argument, which other checkpoints of the same model are computed with, too.
        trust_remote_code: value of the argument, which other checkpoints of the same model are loaded with, too.
    """

    def __init__(
        self,
        store: Store,
        *,
        model: str | nn.Module | None = None,
        tokenizer: Tokenizer | None = None,
        adapter: str | None = None,
        checkpoints: Sequence[str | Path] | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        settings = store.settings
        self.trust_remote_code = trust_remote_code
        self.lock = threading.RLock()
        self._held: BorrowedNetwork | None = None
        if isinstance(model, nn.Module):
            if adapter is not None:
                raise SettingError(
                    "the network that was given has its adapter on it: leave out the adapter's place"
                )
            self.settings: ModelSettings = with_checkpoints(settings.model, checkpoints)
            check_checkpoints(self.settings, settings.fingerprint, store.path)
            self._held = BorrowedNetwork(model, store.path, settings)
        elif tokenizer is not None:
            raise SettingError("a tokenizer goes with a network that is given: leave it out, or give the network")
        else:
            self.settings = checked_settings(store, model, adapter, checkpoints)
        try:
            held = self._held
            if held is None or tokenizer is None:
                self.tokenizer, encoder = make_encoder(self.settings, settings.text, trust_remote_code)
            else:
                self.tokenizer = tokenizer
                encoder = Encoder(tokenizer, settings.text, held.context_length, held.vocabulary)
            if held is not None:
                for sample in store.list(limit=1):
                    encoder.encode_stored(sample)  # raises an error if the tokenizer is another
            states = ONE_STATE
            if held is None:
                loaded = load_model(self.settings, device, trust_remote_code)
                module, states = loaded.model, loaded.states
            else:
                module = held.module
                if self.settings.checkpoints:
                    states = CheckpointWeights(module, self.settings, keep=True)
            self.traced = settings.traced
            self.gradient, self.projection = settings.gradient, settings.projection
            with own_torch_modes():
                engine = RapidGradEngine(module, self.traced, settings.section, self.gradient)
        except BaseException:
            if self._held is not None:
                self._held.close()
            raise
        self.device: torch.device = engine.device
        self.tokens_per_batch = tokens_per_batch
        budget = TokenBudget.for_device(tokens_per_batch, engine.device, settings.section.dimension)
        self._rows = SectionRunner(BatchRunner(engine, budget), states)

        def parts_of(objective: Objective) -> ModelParts:
            asking = engine.asking(objective)
            return ModelParts(
                module,
                encoder,
                asking,
                budget,
                SectionRunner(BatchRunner(asking, budget), states),
                SectionExplainer(module, asking, budget, states),
                TokenQueries(asking, budget, states),
            )

        self._parts = {objective: parts_of(objective) for objective in self.gradient.objectives}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the model; a network that was given is put back into its former state."""
        with self.lock:
            next(iter(self._parts.values())).engine.close()
            if self._held is not None:
                self._held.close()

    @contextmanager
    def exclusive(self, objective: Objective | None = None) -> Iterator[ModelParts]:
        """Lend the model's parts to one thread for a computation that no method offers; other threads wait.

        Args:
            objective: objective of the question. The rows that the parts compute have it, too, if stored rows do,
                else the store's only one. None: the first of the store's.
        """
        with self.lock, own_torch_modes():
            default = self._parts[self.gradient.default_objective]
            yield default if objective is None else self._parts.get(objective, default)

    def encode_stored(self, sample: Sample) -> EncodedSample:
        """Encode a stored sample as at ingest, see `Encoder.encode_stored`.

        Raises:
            StoreMismatchError: the sample's text gives other tokens than at ingest.
        """
        with self.exclusive() as parts:
            return parts.encoder.encode_stored(sample)

    def token_spans(self, encoded: EncodedSample) -> list[tuple[int, int]]:
        """Find the span of each token of a sample in its prompt and response together."""
        with self.exclusive() as parts:
            return parts.encoder.token_spans(encoded)

    def count_tokens(self, query: TextSample) -> int:
        """Count the tokens of a query, after it was cut to the store's maximum length.

        A query without a response is counted as the prompt that the model would answer.

        Raises:
            RowError: the query cannot be encoded.
        """
        with self.exclusive() as parts:
            if not query.has_response:
                return len(parts.encoder.encode_prompt(query))
            return len(_encoded(query, parts.encoder).ids)

    def prepared(
        self, sample: TextSample, max_new_tokens: int, spans: Sequence[Part] = ()
    ) -> tuple[Query, EncodedSample]:
        """Encode a query, after the model has answered it if it has no answer.

        Args:
            sample: the query.
            max_new_tokens: maximum number of tokens of an answer that the model writes.
            spans: parts of the generation to ask about, see `rapidin.settings.SearchOptions`; empty: all of it.

        Raises:
            SettingError: a span does not occur in the generation of a query that came from no file.
            RowError: a span does not occur in the generation of a file's row, or a query cannot be used.
        """
        generated = not sample.has_response
        with self.exclusive() as parts:
            encoded = (
                self._answered(parts, sample, max_new_tokens) if generated else _encoded(sample, parts.encoder)
            )
            asked: tuple[tuple[int, int], ...] = ()
            if spans:
                try:
                    chosen = tokens_in_spans(encoded, parts.encoder.token_spans(encoded), spans)
                except SettingError as error:
                    if not sample.file:
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

    def _answered(self, parts: ModelParts, sample: TextSample, max_new_tokens: int) -> EncodedSample:
        """Let the model answer a query, and encode the query with this answer."""
        prompt = parts.encoder.encode_prompt(sample)
        room = min(max_new_tokens, parts.encoder.max_length - len(prompt))
        try:
            answer = generate(parts.module, self.tokenizer, prompt, room)
        except (RapidinError, MemoryError):
            raise
        except Exception as error:
            raise RowError(
                sample.file,
                sample.row,
                f"the model cannot answer this prompt ({named_line(error)}): give a generation",
                sample.id,
            ) from error
        if not answer.text.strip():
            raise RowError(
                sample.file, sample.row, "the model answers nothing to this prompt: give a generation", sample.id
            )
        # The ids are those that the model wrote, because tokenising its text might give others.
        return EncodedSample(
            id=sample.id,
            ids=(*prompt, *answer.ids),
            targets=(False,) * len(prompt) + (True,) * len(answer.ids),
            truncated=False,
            prompt=parts.encoder.encode(sample, answer.text).prompt,
            response=answer.text,
        )

    def vectors(
        self,
        samples: Sequence[EncodedSample],
        objective: Objective | None = None,
        *,
        raw: bool = False,
    ) -> NDArray[np.float32]:
        """Compute the RapidGrads of queries, float32 [q, K], or [q, K/2] if rows have two objectives.

        At several checkpoints their sections are weighted by learning rates, see `SectionRunner`. `placed` makes
        of the result what can be compared with rows.

        Args:
            samples: the queries.
            objective: objective of the queries; None: the first of the store's.
            raw: whether the gradients are not normalised, as a correction by the curvature needs them; otherwise
                they are normalised as the store's settings say, and the objective is one of the store's.

        Raises:
            GradientError: a query's gradient is zero or not finite, or the model fails on a query.
        """
        with self.exclusive(objective) as parts, _failing_on(samples):
            batch = parts.runner.queries(samples, objective or parts.engine.objective if raw else None)
        for row, problem in batch.problems.items():
            raise GradientError(samples[row].id, f"{problem}; ask about another generation", "query")
        return batch.vectors

    def placed(self, vectors: NDArray[np.float32], objective: Objective) -> NDArray[np.float32]:
        """Put queries where rows have their objective, float32 [q, K].

        If rows have two objectives, the result has zeros for the other one, and is multiplied by √2, because rows
        are divided by it.

        Args:
            vectors: queries, corrected or not, from `vectors` or `token_vectors`.
            objective: their objective.
        """
        objectives = self.gradient.objectives
        if len(objectives) == 1:
            return vectors
        placed = np.zeros((len(vectors), len(objectives), vectors.shape[1]), np.float32)
        placed[:, objectives.index(objective)] = vectors * np.float32(math.sqrt(len(objectives)))
        return placed.reshape(len(vectors), -1)

    def rows(self, samples: Sequence[EncodedSample]) -> NDArray[np.float32]:
        """Compute the RapidGrads of training samples as an ingest does, before they are coded, float32 [n, K].

        Args:
            samples: the n samples, at most as many as memory has room for.

        Raises:
            GradientError: a sample's gradient is zero or not finite.
        """
        with self.exclusive():
            batch = self._rows.rows(samples)
        for row, problem in batch.problems.items():
            raise GradientError(samples[row].id, problem)
        return batch.vectors

    def token_vectors(
        self,
        query: EncodedSample,
        objective: Objective | None = None,
        *,
        raw: bool = False,
    ) -> NDArray[np.float32]:
        """Compute the RapidGrads of a query's target tokens, float32 [g, K] or [g, K/2]; see `TokenQueries`.

        Args:
            query: the query.
            objective: see `vectors`.
            raw: see `vectors`.

        Raises:
            GradientError: a token's gradient is not finite, or the model fails on the query.
        """
        with self.exclusive(objective) as parts, _failing_on([query]):
            return parts.token_queries.vectors(query, objective or parts.engine.objective if raw else None)


@contextmanager
def _failing_on(queries: Sequence[EncodedSample]) -> Iterator[None]:
    """Turn whatever a model raises into an error that names the query.

    Raises:
        GradientError: the model failed.
    """
    try:
        yield
    except (RapidinError, MemoryError):
        raise
    except Exception as error:
        others = f" or one of the {len(queries) - 1} that follow" if len(queries) > 1 else ""
        reason = f"the model failed on it{others} ({named_line(error)}); ask about another prompt or generation"
        raise GradientError(queries[0].id, reason, "query") from error


def _encoded(query: TextSample, encoder: Encoder) -> EncodedSample:
    """Encode a query that has a response; in a chat only the last answer is the generation."""
    return encoder.encode(query, query.response if query.turns else None)
