"""Measures of how well rankings find the relevant samples, and of how much two rankings agree.

Every measure is computed from one total order of the samples: they are ordered by score, the largest first, and
samples of equal score by a digest of seed and id. So ties (BM25 gives thousands of zeros) do not depend on the
order in which samples are stored, and favour no sample. Every measure is a number even if no sample, or every
sample, is relevant; each function says which number.

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
"""Values of k in Table 4 of Lin et al. 2024 (arXiv 2405.11724), and some between them."""


@dataclass(frozen=True, slots=True)
class EndsMeasures:
    """auPRC and auROC of the k best and the k worst samples of a ranking."""

    auprc: float
    auroc: float


def tie_order(ids: Sequence[str], seed: int = 0) -> NDArray[np.uint64]:
    """Compute a number for each id, uint64 [n]; samples of equal score are ordered by it, the smallest first."""
    import xxhash

    return np.array([xxhash.xxh3_64_intdigest(id.encode(), seed=seed) for id in ids], dtype=np.uint64)


def ranking(scores: NDArray[np.floating], ties: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Order the samples' positions from the largest score down, int64 [n].

    Args:
        scores: scores of one query, [n].
        ties: numbers of `tie_order`, [n].
    """
    return np.lexsort((ties, -scores)).astype(np.int64)


def ends_measures(ranked: NDArray[np.bool_], k: int) -> EndsMeasures:
    """Compute the measures of Table 4's protocol, which takes the k best and the k worst samples of a ranking.

    auPRC is the average precision of the 2k samples in their order. It is step-wise, because interpolation would
    give too large a value. auROC is the share of pairs of a relevant and an irrelevant sample that are in the
    right order.

    If none of the 2k samples is relevant, nothing was found, and both measures are 0. The paper does the same: its
    auPRC of a random order at k = 5 is .297, where a third of the queries have no relevant sample. If all 2k
    samples are relevant, auPRC is 1 and auROC is 0.5, because there is no pair to judge.

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
    """Divide 1 by the rank of the best relevant sample; 0 if nothing is relevant."""
    found = np.flatnonzero(ranked)
    return 1 / (int(found[0]) + 1) if len(found) else 0.0


def correlation(first: NDArray[np.floating], second: NDArray[np.floating], ranks: bool = False) -> float:
    """Pearson's correlation of two score vectors [n], or with `ranks` Spearman's, where equal scores share a rank.

    It is 0 if one of the vectors is constant, because a constant says nothing about the other.
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
