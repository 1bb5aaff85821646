"""Measures of how well rankings find the relevant samples, and of how much two rankings agree.

Every measure is computed from one total order of the samples: by score, the largest first, and equal scores by a
digest of seed and id. So ties (BM25 gives thousands of zeros) neither depend on the order in which samples are
stored nor favour anything. Every value is a number, even if a class is absent; each function says which.

Average precision and auROC are scikit-learn's, computed on positions in that order, so that there are no ties.

Shape letters: q queries · n samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapidin.support import package

PAPER_KS = (5, 10, 50, 100, 500, 1000)
"""The k of Table 4 of Lin et al. 2024 (arXiv 2405.11724), and some between."""


@dataclass(frozen=True, slots=True)
class EndsMeasures:
    """auPRC and auROC of the k best and the k worst samples of a ranking."""

    auprc: float
    auroc: float


def tie_order(ids: Sequence[str], seed: int = 0) -> NDArray[np.uint64]:
    """A number for each id by which equal scores are ordered, the smallest first, uint64 [n]."""
    import xxhash

    return np.array([xxhash.xxh3_64_intdigest(id.encode(), seed=seed) for id in ids], dtype=np.uint64)


def ranking(scores: NDArray[np.floating], ties: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions of the samples from the largest score down, int64 [n].

    Args:
        scores: scores of one query, [n].
        ties: numbers of `tie_order`, [n].
    """
    return np.lexsort((ties, -scores)).astype(np.int64)


def ends_measures(ranked: NDArray[np.bool_], k: int) -> EndsMeasures:
    """Measures of the protocol of Table 4, by which a method calls the k best relevant and the k worst irrelevant.

    auPRC is the average precision of the 2k samples in their order; it is step-wise, because interpolation would
    be too kind. auROC is the share of pairs of a relevant and an irrelevant sample that stand in the right order.

    If no sample among the 2k is relevant, nothing was found, and both are 0. The paper counts so, too: it has .297
    for random order at k = 5, where a third of the queries has none. If every sample is relevant, auPRC is 1, and
    auROC, which has no pair to judge by, is 0.5.

    Args:
        ranked: whether each sample is relevant, from the best down, [n].
        k: number of samples at each end, at most half of n.

    Raises:
        ValueError: k is not in 1 … n/2.
    """
    if not 1 <= k <= len(ranked) // 2:
        raise ValueError(f"k is {k} of {len(ranked)} samples")
    chosen = np.concatenate([ranked[:k], ranked[-k:]])
    if not chosen.any():
        return EndsMeasures(0.0, 0.0)
    if chosen.all():
        return EndsMeasures(1.0, 0.5)
    metrics = package("sklearn.metrics", "scikit-learn")
    order = -np.arange(2 * k)
    return EndsMeasures(
        float(metrics.average_precision_score(chosen, order)), float(metrics.roc_auc_score(chosen, order))
    )


def average_precision(ranked: NDArray[np.bool_]) -> float:
    """Average precision over the whole ranking; 0 if nothing is relevant."""
    if not ranked.any():
        return 0.0
    metrics = package("sklearn.metrics", "scikit-learn")
    return float(metrics.average_precision_score(ranked, -np.arange(len(ranked))))


def precision(ranked: NDArray[np.bool_], k: int) -> float:
    """Share of relevant samples among the k best; k is at most n."""
    return float(ranked[:k].mean())


def reciprocal_rank(ranked: NDArray[np.bool_]) -> float:
    """1 divided by the rank of the best relevant sample; 0 if nothing is relevant."""
    found = np.flatnonzero(ranked)
    return 1 / (int(found[0]) + 1) if len(found) else 0.0


def correlation(first: NDArray[np.floating], second: NDArray[np.floating], ranks: bool = False) -> float:
    """Pearson's correlation of two score vectors [n], or Spearman's with `ranks`, where equal scores share a rank.

    It is 0 if one of them is constant, because a constant says nothing about the other.
    """
    if ranks:
        stats = package("scipy.stats", "scipy")
        first, second = stats.rankdata(first), stats.rankdata(second)
    first = np.asarray(first, dtype=np.float64) - np.mean(first, dtype=np.float64)
    second = np.asarray(second, dtype=np.float64) - np.mean(second, dtype=np.float64)
    size = np.linalg.norm(first) * np.linalg.norm(second)
    return float(np.clip(first @ second / size, -1, 1)) if size > 0 else 0.0


def overlap(first: NDArray[np.floating], second: NDArray[np.floating], ties: NDArray[np.uint64], k: int) -> float:
    """Share of the k best samples by `first` that are among the k best by `second`; k is at most n."""
    return len(np.intersect1d(ranking(first, ties)[:k], ranking(second, ties)[:k])) / k
