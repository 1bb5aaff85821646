"""How close inner products of compressed gradients come to those of exact ones, on a trained model.

All pairs of held-out queries (with the responses of their rows) and training samples. What is stored of a sample
is rounded to half precision, as on disk; queries are not. Besides rapidin: the authors' algorithm, and two-sided
projections of each layer as bergson and LoGra have them, all on the same layer-normalised gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from benchmarks import tables
from benchmarks.authors import AuthorsProjection
from benchmarks.exact import ExactGradients, exact_scores, flattened
from benchmarks.methods import AUTHORS, rapidgrads
from benchmarks.two_sided import TwoSided
from benchmarks.workload import KINDS, projection_settings
from rapidin.attribution.rapidgrads import RapidGradEngine
from rapidin.data import read_rows
from rapidin.model.loading import LoadedModel, load_model, load_tokenizer
from rapidin.settings.choices import DType
from rapidin.settings.store_settings import ModelSettings, TextSettings
from rapidin.text import EncodedSample, Encoder, recognise

_HALVES: tuple[DType, ...] = ("bfloat16", "float16")
_USUAL = 1 << 16
"""K of the authors' algorithm and of the comparisons of data types."""

_ROWS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Material:
    """Queries and samples as tokens, and which pairs belong together, bool [queries, samples] each.

    Attributes:
        model: directory or hub id.
        labelled_queries: which queries carry the label, bool [queries].
        labelled_samples: which samples do, bool [samples].
    """

    model: str
    queries: list[EncodedSample]
    samples: list[EncodedSample]
    labelled_queries: np.ndarray
    labelled_samples: np.ndarray


@dataclass(frozen=True, slots=True)
class Compression:
    """A map from the parts of a gradient to so many numbers."""

    project: Callable[[Sequence[Tensor]], Tensor]
    numbers: int


def read_material(
    model: str, train: Path, queries: Path, label: str, limits: tuple[int | None, int | None]
) -> Material:
    """Read and encode the rows.

    Args:
        model: whose tokenizer is used.
        train: file of training rows.
        queries: file of held-out rows, with responses.
        label: boolean field of the rows.
        limits: training rows and queries to use, None for all.
    """
    tokenizer, context_length = load_tokenizer(ModelSettings(model=model))
    encoder = Encoder(tokenizer, TextSettings(), context_length)

    def read(file: Path, count: int | None) -> tuple[list[EncodedSample], np.ndarray]:
        rows = [recognise(row) for row in islice(read_rows([file]), count)]
        return [encoder.encode(row) for row in rows], np.array([bool(row.metadata[label]) for row in rows])

    encoded_queries, labelled_queries = read(queries, limits[1])
    encoded_samples, labelled_samples = read(train, limits[0])
    return Material(model, encoded_queries, encoded_samples, labelled_queries, labelled_samples)


def fidelity_table(material: Material, dimensions: Sequence[int], tokens: int) -> None:
    """Print the table.

    Args:
        material: queries and samples.
        dimensions: every K of rapidin.
        tokens: padded tokens of a batch.
    """
    loaded = _load(material, "float32")
    gradients = ExactGradients(loaded)
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    tables.heading(
        f"Fidelity: {parameters / 1e6:.1f} M parameters, {len(material.queries)} queries × "
        f"{len(material.samples)} samples, against exact layer-normalised gradients",
        *("method", "numbers", "bytes a sample", "against", "Pearson", "Spearman", "relative error"),
        *("variance of (score − exact) × numbers", "labelled in the top 10 of labelled queries"),
    )
    exact, compressed = _compressed_scores(gradients, material)
    uncompressed = sum(int(np.prod(shape)) for shape in gradients.shapes)
    _row("exact gradients", uncompressed, 4 * uncompressed, "themselves", exact, exact, material)
    for kind in KINDS:
        for dimension in dimensions:
            scores = _rapidin_scores(loaded, kind, dimension, tokens, material)
            _row(f"rapidin, {kind}", dimension, 2 * dimension, "float32", scores, exact, material)
    for name, (numbers, scores) in compressed.items():
        _row(name, numbers, 2 * numbers, "float32", scores, exact, material)
    for dtype in _HALVES:
        loaded = _load(material, dtype)
        same = exact_scores(ExactGradients(loaded), material.queries, material.samples)
        name = f"exact gradients, {dtype} model"
        _row(name, uncompressed, 4 * uncompressed, "float32", same, exact, material)
        for kind in KINDS:
            scores = _rapidin_scores(loaded, kind, _USUAL, tokens, material)
            for against, truth in (("float32", exact), (dtype, same)):
                name = f"rapidin, {kind}, {dtype} model"
                _row(name, _USUAL, 2 * _USUAL, against, scores, truth, material)


def _load(material: Material, dtype: DType) -> LoadedModel:
    return load_model(ModelSettings(model=material.model, dtype=dtype), "cpu")


def _compressed_scores(
    gradients: ExactGradients, material: Material
) -> tuple[np.ndarray, Mapping[str, tuple[int, np.ndarray]]]:
    """Score by exact gradients and by every compression of them, in one pass over the samples.

    Returns:
        Exact scores [queries, samples]; numbers and scores of each compression by name.
    """
    authors = AuthorsProjection(sum(int(np.prod(shape)) for shape in gradients.shapes), _USUAL).tabulated()
    compressions = {AUTHORS: Compression(lambda parts: authors(flattened(parts)), _USUAL)}
    for side in (16, 32):
        two_sided = TwoSided(gradients.shapes, side)
        compressions[f"two-sided, {side} × {side} a layer"] = Compression(two_sided, two_sided.numbers)
    vectors: dict[str, list[Tensor]] = {name: [] for name in compressions}

    def flat(sample: EncodedSample) -> Tensor:
        parts = gradients.parts(sample)
        for name, compression in compressions.items():
            vectors[name].append(compression.project(parts))
        return flattened(parts)

    queries = torch.stack([flat(query) for query in material.queries])
    columns = []
    for first in range(0, len(material.samples), _ROWS_AT_ONCE):
        some = material.samples[first : first + _ROWS_AT_ONCE]
        columns.append(queries @ torch.stack([flat(sample) for sample in some]).T)
    count = len(material.queries)
    scores = {
        name: (compression.numbers, _products(torch.stack(vectors[name]).numpy(), count))
        for name, compression in compressions.items()
    }
    return torch.cat(columns, dim=1).double().numpy(), scores


def _rapidin_scores(loaded: LoadedModel, kind: str, dimension: int, tokens: int, material: Material) -> np.ndarray:
    """Score by RapidGrads, computed by rapidin's engine without a store."""
    with RapidGradEngine(loaded.model, loaded.parameters, projection_settings(kind, dimension)) as engine:
        vectors = rapidgrads(engine, [*material.queries, *material.samples], tokens, dimension)
    return _products(vectors, len(material.queries))


def _products(vectors: np.ndarray, queries: int) -> np.ndarray:
    """Inner products of the first vectors, the queries', with the others as they are stored."""
    return vectors[:queries].astype(np.float64) @ vectors[queries:].astype(np.float16).astype(np.float64).T


def _row(
    name: str,
    numbers: int,
    size: int,
    against: str,
    scores: np.ndarray,
    exact: np.ndarray,
    material: Material,
) -> None:
    error = scores - exact
    best = np.argsort(-scores[material.labelled_queries], axis=1)[:, :10]
    tables.row(
        name,
        f"{numbers:,}",
        f"{size:,}",
        against,
        f"{pearsonr(scores.ravel(), exact.ravel()).statistic:.4f}",
        f"{spearmanr(scores.ravel(), exact.ravel()).statistic:.4f}",
        f"{np.sqrt((error**2).mean() / (exact**2).mean()):.3f}",
        f"{error.var() * numbers:.3g}",
        f"{material.labelled_samples[best].mean():.3f}",
    )
