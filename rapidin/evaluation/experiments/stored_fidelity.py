"""Comparison of a store's scores with scores of exact gradients, and an estimate of what another K would give.

Some stored samples stand for queries and others are ranked; all are drawn at random. Stored scores differ from
exact ones by the noise of the projection, whose variance is proportional to 1/K, and by the noise of few bits.

Shape letters: q queries · n samples · K projection dimension.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import SettingError, StoreError
from rapidin.evaluation.methods import AskedQuery, StepProgress, TracIn, TrainingSet
from rapidin.evaluation.metrics import Bootstrap, correlation, overlap, tie_order
from rapidin.model import StoreModel
from rapidin.records import FidelityReport, Outlook, OverlapAt, Query, Sample
from rapidin.settings import StoreSettings
from rapidin.storage import Store
from rapidin.text import EncodedSample

ENOUGH = 0.95
"""Correlation with exact scores above which a larger K hardly changes what a search finds."""
_FEWEST = 4
_OVERLAP_KS = (1, 5, 10, 25, 50)
_FACTORS = (4, 16)
_LARGEST = 2**28
_VECTORS_AT_ONCE = 16


def fidelity(
    store: Store, model: StoreModel, sample: int, seed: int = 0, on_progress: StepProgress | None = None
) -> FidelityReport:
    """Compare a store's scores with exact ones.

    Args:
        store: store with at least 8 samples.
        model: model of the store.
        sample: number of samples that stand for queries, and number of others that are ranked; each is at most
            half of the store.
        seed: seed of the draw.
        on_progress: function that gets a step's name, the number of parts done, and the number of all parts.

    Raises:
        SettingError: the store or `sample` is too small.
        GradientError: a gradient is not finite.
        StoreError: the store was changed during the comparison.
    """
    started = time.monotonic()
    everything = sorted(store.list(), key=lambda one: one.id)
    count = min(sample, len(everything) // 2)
    if count < _FEWEST:
        raise SettingError(
            f"{store.path}: {count} queries and as many other samples are too few to compare: "
            f"take a store of at least {2 * _FEWEST} samples and a --sample of at least {_FEWEST}"
        )
    drawn = random.Random(seed).sample(everything, 2 * count)
    ranked = TrainingSet(sorted(drawn[:count], key=lambda one: one.id), model)
    queries = [_asked(model, one) for one in drawn[count:]]

    objective = model.gradient.default_objective
    estimated = model.placed(model.vectors([query.encoded for query in queries]), objective)
    stored = _stored_scores(store, estimated, ranked.samples)
    uncoded = _uncoded_scores(model, estimated, list(ranked.encoded()))
    exact = TracIn(
        model,
        normalise_layers=store.settings.gradient.normalise_layers,
        objective=objective,
    ).scores(queries, ranked, on_progress)
    return replace(
        compared(stored, uncoded, exact, [one.id for one in ranked.samples], store.settings),
        store=str(store.path),
        seconds=time.monotonic() - started,
    )


def compared(
    stored: NDArray[np.float32],
    uncoded: NDArray[np.float32],
    exact: NDArray[np.float32],
    ids: Sequence[str],
    settings: StoreSettings,
) -> FidelityReport:
    """Compute the figures of a comparison.

    Args:
        stored: scores by the store's vectors, [q, n].
        uncoded: scores by vectors that were not reduced to few bits, [q, n].
        exact: scores by whole gradients, [q, n].
        ids: ids of the samples.
        settings: settings of the store.
    """
    dimension, bits = settings.projection.dimension, settings.codec.bits
    mean = Bootstrap(len(exact)).mean
    # Variances are taken within a query, because what all samples have in common does not change their order.
    signal = float(np.mean(exact.astype(np.float64).var(axis=1)))
    noise = float(np.mean((stored.astype(np.float64) - exact).var(axis=1)))
    coding = min(noise, float(np.mean((stored.astype(np.float64) - uncoded).var(axis=1))))
    ties = tie_order(ids)
    pearson = mean(np.array([correlation(*pair) for pair in zip(stored, exact, strict=True)]))
    outlook = tuple(
        Outlook(larger, expected_correlation(signal, noise * dimension / larger), larger * bits // 8)
        for larger in (dimension * factor for factor in _FACTORS)
        if larger <= _LARGEST
    )
    centred = exact.astype(np.float64) - exact.mean()
    spread = float((centred**2).sum())
    return FidelityReport(
        store="",
        dimension=dimension,
        bits=bits,
        samples=exact.shape[1],
        queries=len(exact),
        pearson=pearson,
        spearman=mean(np.array([correlation(*pair, ranks=True) for pair in zip(stored, exact, strict=True)])),
        slope=float((centred * stored).sum()) / spread if spread else 0.0,
        signal=math.sqrt(signal),
        noise=math.sqrt(noise),
        noise_times_dimension=noise * dimension,
        coding=coding / noise if noise else 0.0,
        overlaps=tuple(
            OverlapAt(k, mean(np.array([overlap(*pair, ties, k) for pair in zip(stored, exact, strict=True)])))
            for k in _OVERLAP_KS
            if 2 * k <= exact.shape[1]
        ),
        outlook=outlook,
        suffices=pearson.mean >= ENOUGH,
        verdict=_verdict(pearson.mean, coding / noise if noise else 0.0, settings, outlook),
        seconds=0.0,
    )


def expected_correlation(signal: float, noise: float) -> float:
    """Expected correlation of stored with exact scores, given the variances of exact scores and of noise.

    Noise that is independent of the signal leaves √(signal/(signal + noise)). Its variance is proportional to 1/K:
    the projection's is, and so is that of rounding, because each number is rounded in proportion to the vector's
    length over √K.
    """
    return math.sqrt(signal / (signal + noise)) if signal + noise else 0.0


def _verdict(pearson: float, coding: float, settings: StoreSettings, outlook: Sequence[Outlook]) -> str:
    dimension, bits = settings.projection.dimension, settings.codec.bits
    if pearson >= ENOUGH:
        first = f"K = {dimension:,} suffices: stored scores correlate at {pearson:.3f} with exact ones."
    else:
        first = (
            f"K = {dimension:,} is small for this model: stored scores correlate at {pearson:.3f} with exact ones."
        )
        enough = next((one for one in outlook if one.pearson >= ENOUGH), None)
        if enough is not None:
            first += f" --projection-dim {enough.dimension} would give about {enough.pearson:.2f}."
        elif outlook:
            first += (
                f" Even --projection-dim {outlook[-1].dimension} would give about {outlook[-1].pearson:.2f} only."
            )
        first += " A search orders its best samples exactly (--rerank), whatever K is."
    word = "bit" if bits == 1 else "bits"
    if coding < 0.1:
        return f"{first} {bits} {word} a number suffice: they make {coding:.1%} of the noise."
    return f"{first} {bits} {word} a number make {coding:.0%} of the noise; more --bits would take it away."


def _asked(model: StoreModel, sample: Sample) -> AskedQuery:
    encoded = model.encode_stored(sample)
    query = Query(
        id=sample.id,
        prompt=sample.prompt,
        generation=sample.response,
        generated=False,
        tokens=len(encoded.ids),
        targets=sum(encoded.targets),
        truncated=encoded.truncated,
        metadata=sample.metadata,
    )
    return AskedQuery(query, encoded)


def _uncoded_scores(
    model: StoreModel, queries: NDArray[np.float32], samples: Sequence[EncodedSample]
) -> NDArray[np.float32]:
    """Compute scores by vectors that are made again and not coded, [q, n]; a few vectors are held at a time."""
    parts = [
        queries @ model.rows(samples[first : first + _VECTORS_AT_ONCE]).T
        for first in range(0, len(samples), _VECTORS_AT_ONCE)
    ]
    return np.concatenate(parts, axis=1)


def _stored_scores(store: Store, queries: NDArray[np.float32], samples: Sequence[Sample]) -> NDArray[np.float32]:
    """Compute the scores of some samples by the stored vectors, [q, n]."""
    with store.snapshot() as snapshot:
        ids, scores = snapshot.scores(queries)
    places = {id: place for place, id in enumerate(ids)}
    try:
        return scores[:, [places[sample.id] for sample in samples]]
    except KeyError as error:
        raise StoreError(f"{store.path} was changed during the comparison: run the same command again") from error
