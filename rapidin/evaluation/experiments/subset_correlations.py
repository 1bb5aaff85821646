"""The linear datamodeling score's arithmetic (Park et al. 2023): subsets, predictions, rank correlations.

A method is right if the sum of its scores over the samples of a model's training predicts how well that model does
on a query. Proponents have positive scores and lower the loss, so the sum is compared with the negative loss.

Shape letters: m subsets · n samples · q queries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import ComputationError
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
