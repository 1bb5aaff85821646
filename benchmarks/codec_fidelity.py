"""What 16, 4 and 1 bit a number do to scores, against exact gradients of a trained model, at several K."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from scipy.stats import pearsonr, spearmanr

from benchmarks import tables
from benchmarks.exact import ExactGradients, exact_scores
from benchmarks.methods import rapidgrads
from rapidin.attribution.rapidgrads import RapidGradEngine
from rapidin.data import read_rows
from rapidin.ingest.projection_choice import choose_projection
from rapidin.model.loading import load_model, load_tokenizer
from rapidin.settings.choices import Bits
from rapidin.settings.store_settings import ModelSettings, ProjectionSettings, TextSettings
from rapidin.storage.vectors.codecs import Codec, codec_of_bits
from rapidin.text import EncodedSample, Encoder, recognise

_BITS: tuple[Bits, ...] = (16, 4, 1)
_QUERIES = 100
_TOKENS = 2048
_SECONDS = 0.3


def codec_table(
    model: str,
    adapter: Path | None,
    train: Path,
    queries: Path,
    label: str,
    limit: int,
    dimensions: Sequence[int],
) -> None:
    """Print the table.

    Args:
        model, adapter: directories or hub ids; with an adapter its parameters are traced.
        train: file of training rows.
        queries: file of held-out rows, with responses.
        label: boolean field of the rows.
        limit: training rows to use.
        dimensions: every K.
    """
    settings = ModelSettings(model=model, adapter=None if adapter is None else str(adapter))
    tokenizer, context_length = load_tokenizer(settings)
    encoder = Encoder(tokenizer, TextSettings(), context_length)

    def read(file: Path, count: int) -> tuple[list[EncodedSample], np.ndarray]:
        rows = [recognise(row) for row in islice(read_rows([file]), count)]
        return [encoder.encode(row) for row in rows], np.array([bool(row.metadata[label]) for row in rows])

    asked, labelled_queries = read(queries, _QUERIES)
    samples, labelled_samples = read(train, limit)
    loaded = load_model(settings, "cpu")
    exact = exact_scores(ExactGradients(loaded), asked, samples)
    tables.heading(
        f"Codecs: {len(loaded.parameters)} tensors traced, {len(asked)} queries × {len(samples)} samples, against "
        f"exact gradients (their scores' deviation is {exact.std():.4f})",
        *(
            "projection",
            "K",
            "bits",
            "bytes a sample",
            "Pearson",
            "Spearman",
            "variance of (score − exact) × 65,536",
        ),
        *("labelled in the top 10", "gradients, ms a sample", "coding, ms a sample", "search, µs a sample"),
    )
    for dimension in dimensions:
        projection = choose_projection(
            ProjectionSettings(dimension=dimension),
            loaded.parameters,
            normalise_layers=True,
            kind_given=False,
            dimension_given=True,
        )
        with RapidGradEngine(loaded.model, loaded.parameters, projection) as engine:
            rapidgrads(engine, asked[:4], _TOKENS, dimension)
            started = time.perf_counter()
            vectors = rapidgrads(engine, samples, _TOKENS, dimension)
            seconds = (time.perf_counter() - started) / len(samples)
            wanted = rapidgrads(engine, asked, _TOKENS, dimension)
        for bits in _BITS:
            codec = codec_of_bits(bits)
            scores, coding, search = _coded(codec, vectors, wanted)
            error = scores - exact
            best = np.argsort(-scores[labelled_queries], axis=1)[:, :10]
            tables.row(
                *(projection.kind, f"{dimension:,}", bits, f"{codec.row_bytes(dimension):,}"),
                f"{pearsonr(scores.ravel(), exact.ravel()).statistic:.4f}",
                f"{spearmanr(scores.ravel(), exact.ravel()).statistic:.4f}",
                f"{error.var() * 65536:.3f}",
                f"{labelled_samples[best].mean():.3f}",
                f"{1000 * seconds:.1f}",
                f"{1000 * coding:.2f}",
                f"{1e6 * search:.1f}",
            )


def _coded(codec: Codec, vectors: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Scores [q, n] with coded vectors; seconds to code a vector, and to compare one with a query in a thread."""
    index = codec.new_index(vectors.shape[1])
    started = time.perf_counter()
    codes, scales = codec.encode(index, vectors, np.ones(len(vectors), np.float32))
    coding = (time.perf_counter() - started) / len(vectors)
    turned = codec.turned(queries)
    scores = (turned @ index.sa_decode(codes).T).astype(np.float64) * scales
    query = codec.prepared(turned[:1])
    query.scores(codes)
    started, repeats = time.perf_counter(), 0
    while time.perf_counter() - started < _SECONDS:
        query.scores(codes)
        repeats += 1
    return scores, coding, (time.perf_counter() - started) / repeats / len(vectors)
