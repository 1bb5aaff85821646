"""The linear datamodeling score's arithmetic (Park et al. 2023): subsets, predictions, rank correlations, noise.

A method is right if the sum of its scores over the samples of a model's training predicts how well that model does
on a query. Proponents have positive scores and lower the loss, so the sum is compared with the negative loss.

Shape letters: r repeats · m subsets · n samples · q queries.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import ComputationError
from rapidin.evaluation.metrics import correlation
from rapidin.records import Interval
from rapidin.support import package


def subset(samples: int, fraction: float, seed: int, number: int) -> NDArray[np.bool_]:
    """Draw one subset; it does not depend on how many others are drawn.

    Args:
        samples: number of samples n.
        fraction: share of the samples in the subset.
        seed: seed of all subsets.
        number: number of this subset, from 0.

    Returns:
        Whether each sample is in the subset, bool [n].
    """
    included = np.zeros(samples, dtype=bool)
    included[np.random.default_rng([seed, number]).permutation(samples)[: round(fraction * samples)]] = True
    return included


def datamodeling_scores(
    scores: NDArray[np.float32], members: NDArray[np.bool_], losses: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Spearman's rank correlation of predicted and actual outcomes over subsets, one for each query.

    Args:
        scores: scores of a method, [q, n].
        members: whether each sample is in each subset, [m, n].
        losses: losses of the queries under the models trained on the subsets, [m, q].

    Returns:
        Correlations, float64 [q]; 0 if a method predicts the same for all subsets.

    Raises:
        ComputationError: a query's loss is the same under all models, or none is finite.
    """
    spearman = package("scipy.stats", "scipy").spearmanr
    predicted = members.astype(np.float64) @ scores.T.astype(np.float64)  # [m, q]
    found = np.zeros(len(scores))
    for query in range(len(scores)):
        actual = -losses[:, query]
        if not np.isfinite(actual).all() or np.ptp(actual) == 0:
            raise ComputationError(
                f"query {query + 1}: its loss is not finite, or the same under all {len(actual)} retrained "
                "models; look at one of them (--keep), and whether the training uses {data} and {seed}"
            )
        if np.ptp(predicted[:, query]) > 0:
            found[query] = spearman(predicted[:, query], actual).statistic
    return found


def repeat_agreement(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank correlation over subsets of the losses under two models that differ in their seed alone.

    Args:
        losses: losses of the queries, [r, m, q], r at least 2.

    Returns:
        Mean over all pairs of repeats of Spearman's correlation, float64 [q].
    """
    pairs = [
        [correlation(first[:, query], second[:, query], ranks=True) for query in range(losses.shape[2])]
        for first, second in combinations(losses, 2)
    ]
    return np.mean(pairs, axis=0)  # type: ignore[no-any-return]


def noise_ceiling(agreement: Interval, repeats: int) -> Interval:
    """Estimate the score of a method that predicts perfectly what training on a subset does on average over seeds.

    If two single repeats agree at a, the mean over r repeats agrees at ra / (1 + (r − 1)a) with the mean over r
    others (Spearman 1910, Brown 1910), and at the root of that with what it estimates. The formula is for
    Pearson's correlation, and is used for ranks here.

    Args:
        agreement: mean over queries of `repeat_agreement`.
        repeats: number of repeats.
    """

    def ceiling(a: float) -> float:
        return math.sqrt(repeats * a / (1 + (repeats - 1) * a)) if a > 0 else 0.0

    low, high = (None if bound is None else ceiling(bound) for bound in (agreement.low, agreement.high))
    return Interval(ceiling(agreement.mean), low, high)
