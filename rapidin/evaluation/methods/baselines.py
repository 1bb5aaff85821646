"""The scorers that need no gradient: chance, words, and the likeness of texts to the model.

The text of a training sample is its prompt and response, that of a query its prompt and generation, as the model
saw them. What all samples share, such as the beginning of Alpaca's prompt, tells BM25 nothing, as a word in every
document weighs next to nothing.

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
from rapidin.evaluation.methods.scoring import AskedQuery, Tell, TrainingSet
from rapidin.model import StoreModel, mean_hidden_states
from rapidin.support import package
from rapidin.text import EncodedSample


class RandomScorer:
    """Chance: what a method that knows nothing gets.

    A sample's number depends on seed, query and sample alone, not on their order or on what is beside them.

    Args:
        seed: of the numbers.
    """

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, tell: Tell | None = None
    ) -> NDArray[np.float32]:
        """See `rapidin.evaluation.methods.scoring.Scorer`."""
        scores = np.empty((len(queries), len(training)), dtype=np.float32)
        for row, query in enumerate(queries):
            for column, sample in enumerate(training.samples):
                pair = f"{len(query.query.id)} {query.query.id} {sample.id}".encode()
                scores[row, column] = xxhash.xxh3_64_intdigest(pair, seed=self._seed) / 2**64
        return scores


class Bm25Scorer:
    """BM25 (Robertson et al. 1995) of `bm25s`, in Lucene's form, over English stems without stop words."""

    name = "bm25"

    def __init__(self) -> None:
        self._library = package("bm25s")
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # else it tells its steps
        self._stemmer = package("Stemmer", "PyStemmer").Stemmer("english")
        self._index: Any = None

    def prepare(self, training: TrainingSet, tell: Tell | None = None) -> None:
        """Count the words of every sample."""
        words = self._words([sample.text for sample in training.samples])
        self._index = None
        if any(words):  # bm25s cannot count none at all
            self._index = self._library.BM25()
            self._index.index(words, show_progress=False)

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, tell: Tell | None = None
    ) -> NDArray[np.float32]:
        """See `rapidin.evaluation.methods.scoring.Scorer`."""
        scores = np.zeros((len(queries), len(training)), dtype=np.float32)
        texts = [query.query.prompt + query.query.generation for query in queries]
        for row, words in enumerate(self._words(texts)):
            if words and self._index is not None:
                scores[row] = self._index.get_scores(words)
            if tell is not None:
                tell(self.name, row + 1, len(queries))
        return scores

    def _words(self, texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = self._library.tokenize(
            texts, stopwords="english", stemmer=self._stemmer, return_ids=False, show_progress=False
        )
        return words


class EmbeddingScorer:
    """Cosine of the model's own mean last hidden states over all tokens of a text.

    Args:
        model: of the store.
    """

    name = "embedding"

    def __init__(self, model: StoreModel) -> None:
        self._model = model
        self._samples = np.empty((0, 0), dtype=np.float32)

    def prepare(self, training: TrainingSet, tell: Tell | None = None) -> None:
        """Embed every sample."""
        self._samples = self._embedded(list(training.encoded()), tell)

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, tell: Tell | None = None
    ) -> NDArray[np.float32]:
        """See `rapidin.evaluation.methods.scoring.Scorer`."""
        return self._embedded([query.encoded for query in queries], tell) @ self._samples.T

    def _embedded(self, samples: Sequence[EncodedSample], tell: Tell | None) -> NDArray[np.float32]:
        def told(done: int) -> None:
            if tell is not None:
                tell(self.name, done, len(samples))

        with self._model.exclusive() as parts:
            states = mean_hidden_states(parts.module, [sample.ids for sample in samples], told)
        return normalised(states)


class SentenceScorer:
    """Cosine of the embeddings of a sentence-transformers model.

    Args:
        directory: of that model.
        device: that computes.

    Raises:
        SettingError: the model cannot be loaded.
    """

    name = "embedding"

    def __init__(self, directory: str, device: str | None = None) -> None:
        library = package("sentence_transformers", "sentence-transformers", "pip install sentence-transformers")
        try:
            self._model = library.SentenceTransformer(directory, device=device, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise SettingError(
                f"{directory} is no sentence-transformers model that can be loaded: {reason}"
            ) from error
        self._samples = np.empty((0, 0), dtype=np.float32)

    def prepare(self, training: TrainingSet, tell: Tell | None = None) -> None:
        """Embed every sample."""
        self._samples = self._embedded([sample.text for sample in training.samples])

    def scores(
        self, queries: Sequence[AskedQuery], training: TrainingSet, tell: Tell | None = None
    ) -> NDArray[np.float32]:
        """See `rapidin.evaluation.methods.scoring.Scorer`."""
        texts = [query.query.prompt + query.query.generation for query in queries]
        return self._embedded(texts) @ self._samples.T

    def _embedded(self, texts: list[str]) -> NDArray[np.float32]:
        embedded = self._model.encode(texts, convert_to_numpy=True, show_progress_bar=False)
        return normalised(np.asarray(embedded, dtype=np.float32))


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [n, h] of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit
