"""How well rankings of training samples find the relevant ones, and how much two rankings agree.

Every measure is computed from one total order of the samples: by score, the largest first, equal scores by a
digest of seed and id. So ties (BM25 gives thousands of zeros) neither depend on the order in which samples are
stored nor favour anything. Every value is a number; where a class is absent, the functions say what they give.

Shape letters: q queries · n samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapidin.support import package

PAPER_KS = (5, 10, 50, 100, 500, 1000)
"""Those of Table 4 of Lin et al. 2024 (arXiv 2405.11724), and between."""


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
        scores: of one query, [n].
        ties: of `tie_order`.
    """
    return np.lexsort((ties, -scores)).astype(np.int64)


def ends_measures(ranked: NDArray[np.bool_], k: int) -> EndsMeasures:
    """The protocol of Table 4: the k best are what the method calls relevant, the k worst what it does not.

    auPRC is the average precision of the 2k samples in their order (step-wise, without interpolation, which would
    be too kind), auROC the share of their pairs of a relevant and an irrelevant one that stand in the right order.

    Without a relevant sample among the 2k nothing was found, and both are 0; the paper's .297 for random order at
    k = 5, where a third of the queries has none, shows that it counts so, too. Without an irrelevant one
    auPRC is 1, and auROC, which has no pair to judge by, 0.5.

    Args:
        ranked: whether each sample is relevant, from the best down, [n].
        k: at most half of n.

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
    """Average precision over the whole ranking; 0 where nothing is relevant."""
    if not ranked.any():
        return 0.0
    metrics = package("sklearn.metrics", "scikit-learn")
    return float(metrics.average_precision_score(ranked, -np.arange(len(ranked))))


def precision(ranked: NDArray[np.bool_], k: int) -> float:
    """Share of relevant samples among the k best; k is at most n."""
    return float(ranked[:k].mean())


def reciprocal_rank(ranked: NDArray[np.bool_]) -> float:
    """1 by the rank of the best relevant sample; 0 where nothing is relevant."""
    found = np.flatnonzero(ranked)
    return 1 / (int(found[0]) + 1) if len(found) else 0.0


def correlation(first: NDArray[np.floating], second: NDArray[np.floating], ranks: bool = False) -> float:
    """Pearson's correlation of two score vectors [n]; with `ranks` Spearman's, equal scores at their mean rank.

    0 where one of them is constant: it says nothing about the other.
    """
    if ranks:
        stats = package("scipy.stats", "scipy")
        first, second = stats.rankdata(first), stats.rankdata(second)
    first = np.asarray(first, dtype=np.float64) - np.mean(first, dtype=np.float64)
    second = np.asarray(second, dtype=np.float64) - np.mean(second, dtype=np.float64)
    size = np.linalg.norm(first) * np.linalg.norm(second)
    return float(np.clip(first @ second / size, -1, 1)) if size > 0 else 0.0


def overlap(first: NDArray[np.floating], second: NDArray[np.floating], ties: NDArray[np.uint64], k: int) -> float:
    """Share of one's k best samples that are among the other's k best; k is at most n."""
    return len(np.intersect1d(ranking(first, ties)[:k], ranking(second, ties)[:k])) / k
