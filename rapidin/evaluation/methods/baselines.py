"""Scorers that need no gradients: chance, words in common, and similarity of texts.

The text of a training sample is its prompt and response, and the text of a query is its prompt and generation, as
the model saw them. Words that all samples share, such as the beginning of Alpaca's prompt, tell BM25 nothing,
because a word in every document weighs next to nothing.

Shape letters: q queries · n samples · h hidden size.
"""

# ruff: noqa: ARG002 - scorers have one signature
from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from rapidin.errors import SettingError
from rapidin.evaluation.methods.scorer import AskedQuery, StepProgress, TrainingSet
from rapidin.model import StoreModel, mean_hidden_states
from rapidin.support import error_line, package
from rapidin.text import EncodedSample


class RandomScorer:
    """Random scores, which show what a method that knows nothing achieves.

    A score depends on the seed, the query and the sample alone, not on their order.

    Args:
        seed: seed of the numbers.
    """

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, on_progress: StepProgress | None = None
    ) -> NDArray[np.float32]:
        """Score every training sample for every query, see `Scorer`."""
        scores = np.empty((len(queries), len(training)), dtype=np.float32)
        for row, query in enumerate(queries):
            for column, sample in enumerate(training.samples):
                pair = f"{len(query.query.id)} {query.query.id} {sample.id}".encode()
                scores[row, column] = xxhash.xxh3_64_intdigest(pair, seed=self._seed) / 2**64
        return scores


class Bm25Scorer:
    """BM25 (Robertson et al. 1995) by `bm25s`, in Lucene's form, over English stems without stop words."""

    name = "bm25"

    def __init__(self) -> None:
        self._library = package("bm25s")
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # otherwise it logs every step
        self._stemmer = package("Stemmer", "PyStemmer").Stemmer("english")
        self._index: Any = None

    def prepare(self, training: TrainingSet, on_progress: StepProgress | None = None) -> None:
        """Count the words of every sample."""
        words = self._words([sample.text for sample in training.samples])
        self._index = None
        if any(words):  # bm25s cannot index an empty corpus
            self._index = self._library.BM25()
            self._index.index(words, show_progress=False)

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, on_progress: StepProgress | None = None
    ) -> NDArray[np.float32]:
        """Score every training sample for every query, see `Scorer`."""
        scores = np.zeros((len(queries), len(training)), dtype=np.float32)
        texts = [query.query.prompt + query.query.generation for query in queries]
        for row, words in enumerate(self._words(texts)):
            if words and self._index is not None:
                scores[row] = self._index.get_scores(words)
            if on_progress is not None:
                on_progress(self.name, row + 1, len(queries))
        return scores

    def _words(self, texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = self._library.tokenize(
            texts, stopwords="english", stemmer=self._stemmer, return_ids=False, show_progress=False
        )
        return words


class EmbeddingScorer:
    """Cosine of the store model's mean last hidden states over all tokens of a text.

    Args:
        model: model of the store.
    """

    name = "embedding"

    def __init__(self, model: StoreModel) -> None:
        self._model = model
        self._samples = np.empty((0, 0), dtype=np.float32)

    def prepare(self, training: TrainingSet, on_progress: StepProgress | None = None) -> None:
        """Embed every sample."""
        self._samples = self._embedded(list(training.encoded()), on_progress)

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, on_progress: StepProgress | None = None
    ) -> NDArray[np.float32]:
        """Score every training sample for every query, see `Scorer`."""
        return self._embedded([query.encoded for query in queries], on_progress) @ self._samples.T

    def _embedded(self, samples: Sequence[EncodedSample], on_progress: StepProgress | None) -> NDArray[np.float32]:
        def told(done: int) -> None:
            if on_progress is not None:
                on_progress(self.name, done, len(samples))

        with self._model.exclusive() as parts:
            states = mean_hidden_states(parts.module, [sample.ids for sample in samples], told)
        return normalised(states)


class SentenceScorer:
    """Cosine of the embeddings of a sentence-transformers model.

    Args:
        directory: directory of the sentence-transformers model.
        device: device that computes; None to let the library choose.

    Raises:
        SettingError: the model cannot be loaded.
    """

    name = "embedding"

    def __init__(self, directory: str, device: str | None = None) -> None:
        library = package("sentence_transformers", "sentence-transformers", "pip install sentence-transformers")
        try:
            self._model = library.SentenceTransformer(directory, device=device, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise SettingError(
                f"{directory} cannot be loaded as a sentence-transformers model: {error_line(error, 300)}; "
                "give the directory of another model"
            ) from error
        self._samples = np.empty((0, 0), dtype=np.float32)

    def prepare(self, training: TrainingSet, on_progress: StepProgress | None = None) -> None:
        """Embed every sample."""
        self._samples = self._embedded([sample.text for sample in training.samples])

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, on_progress: StepProgress | None = None
    ) -> NDArray[np.float32]:
        """Score every training sample for every query, see `Scorer`."""
        texts = [query.query.prompt + query.query.generation for query in queries]
        return self._embedded(texts) @ self._samples.T

    def _embedded(self, texts: list[str]) -> NDArray[np.float32]:
        embedded = self._model.encode(texts, convert_to_numpy=True, show_progress_bar=False)
        return normalised(np.asarray(embedded, dtype=np.float32))


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors [n, h] to length 1; vectors of length 0 stay as they are."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit
