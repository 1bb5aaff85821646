"""Measures of Tables 4 and 2 of Lin et al. 2024: how well and how fast methods find the labelled samples.

Shape letters: q queries · n samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rapidin.evaluation.methods import METHODS, MethodScores
from rapidin.evaluation.metrics import (
    Bootstrap,
    average_precision,
    correlation,
    ends_measures,
    overlap,
    precision,
    ranking,
    reciprocal_rank,
)
from rapidin.records import CachingCost, CurvePoint, EndsQuality, Interval, MethodCost, MethodQuality
from rapidin.settings import Objective

PairMeasure = Callable[[NDArray[np.float32], NDArray[np.float32]], float]
"""Function that compares two methods' scores of one query, [n] each."""

_CURVE_POINTS = 40

STORE_METHODS = ("rapidin", "rapidin-cosine", "rapidin+rerank")
"""Methods whose scores come from the store's vectors, and so from its objective."""


class Comparison:
    """Judges methods by the samples that they rank first.

    Args:
        relevant: whether each sample should be found, [n].
        ties: numbers of `tie_order`, [n].
        ks: numbers of samples at each end that is judged.
        reference: scores of ``rapidin``, [q, n].
    """

    def __init__(
        self,
        relevant: NDArray[np.bool_],
        ties: NDArray[np.uint64],
        ks: Sequence[int],
        reference: NDArray[np.float32],
    ) -> None:
        self._relevant = relevant
        self._ties = ties
        self.ks = fitting(ks, len(relevant) // 2)
        self._reference = reference
        self._bootstrap = Bootstrap(len(reference))
        ranked = self._ranked(reference)
        self._reference_auprc = {k: _ends(ranked, k)[0] for k in self.ks}

    def quality(self, found: MethodScores, cost: MethodCost) -> MethodQuality:
        """Judge a method's scores."""
        ranked = self._ranked(found.scores)
        mean = self._bootstrap.mean
        at = []
        for k in self.ks:
            auprc, auroc = _ends(ranked, k)
            at.append(
                EndsQuality(
                    k=k,
                    auprc=mean(auprc),
                    auroc=mean(auroc),
                    precision=mean(np.array([precision(row, k) for row in ranked])),
                    precision_worst=mean(np.array([precision(row[::-1], k) for row in ranked])),
                    auprc_behind=mean(self._reference_auprc[k] - auprc),
                    overlap=self._over_pairs(found, partial(self._overlap, k)),
                )
            )
        return MethodQuality(
            name=found.name,
            summary=METHODS[found.name].summary,
            at=tuple(at),
            average_precision=mean(np.array([average_precision(row) for row in ranked])),
            reciprocal_rank=mean(np.array([reciprocal_rank(row) for row in ranked])),
            spearman=self._over_pairs(found, lambda own, its: correlation(own, its, ranks=True)),
            curve=tuple(
                CurvePoint(k, mean(np.array([precision(row, k) for row in ranked]))) for k in curve_ks(self.ks[-1])
            ),
            cost=cost,
        )

    def _ranked(self, scores: NDArray[np.float32]) -> list[NDArray[np.bool_]]:
        """Whether each sample is relevant, from the best down, for each query."""
        return [self._relevant[ranking(row, self._ties)] for row in scores]

    def _overlap(self, k: int, own: NDArray[np.float32], its: NDArray[np.float32]) -> float:
        return overlap(own, its, self._ties, k)

    def _over_pairs(self, found: MethodScores, measure: PairMeasure) -> Interval:
        """Mean of a measure that compares rapidin's scores of a query with the method's."""
        pairs = zip(self._reference, found.scores, strict=True)
        return self._bootstrap.mean(np.array([measure(own, its) for own, its in pairs]))


def _ends(ranked: Sequence[NDArray[np.bool_]], k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """auPRC and auROC of every query, [q] each."""
    found = [ends_measures(row, k) for row in ranked]
    return np.array([one.auprc for one in found]), np.array([one.auroc for one in found])


def fitting(ks: Sequence[int], most: int) -> tuple[int, ...]:
    """Keep the numbers that are at most `most`, ascending; if there is none, take `most` itself."""
    return tuple(sorted({k for k in ks if k <= most})) or (max(1, most),)


def curve_ks(most: int) -> list[int]:
    """Numbers from 1 to `most` at equal distances on a logarithmic scale."""
    return sorted({round(float(k)) for k in np.geomspace(1, most, _CURVE_POINTS)})


def cost_of(found: MethodScores, own: MethodScores, caching: CachingCost) -> MethodCost:
    """Put together the time and memory of a method.

    Args:
        found: scores of the method.
        own: scores of ``rapidin``.
        caching: time that it takes to compute the store's vectors.
    """
    cached = METHODS[found.name].cached
    preparation = caching.seconds if cached else found.preparation
    return MethodCost(
        preparation=preparation,
        seconds_alone=found.seconds_alone,
        seconds_together=found.seconds_together,
        memory=found.memory,
        device_memory=found.device_memory,
        pays_from=None
        if cached or found.seconds_alone is None or own.seconds_alone is None
        else pays_from(caching.seconds - preparation, found.seconds_alone - own.seconds_alone),
        pays_from_together=None
        if cached
        else pays_from(caching.seconds - preparation, found.seconds_together - own.seconds_together),
        resumed=found.resumed,
    )


def pays_from(more_before: float, less_each: float) -> int | None:
    """Smallest number of queries that saves more seconds than were spent before; None if no number does.

    Args:
        more_before: seconds spent before the first query.
        less_each: seconds saved by each query.
    """
    if less_each <= 0:
        return None
    return max(1, math.floor(more_before / less_each) + 1)


def verdict(methods: Sequence[MethodQuality]) -> str:
    """Write one sentence about which methods have a higher auPRC than the first, and at which k."""
    first, *others = methods
    better = []
    for method in others:
        ks = [at for at in method.at if at.auprc_behind.mean < 0]
        if ks:
            sure = [str(at.k) for at in ks if _surely_better(at)]
            beyond = f", beyond chance at {', '.join(sure)}" if sure else ", within the intervals"
            better.append(f"{method.name} (k = {', '.join(str(at.k) for at in ks)}{beyond})")
    if not better:
        return f"{first.name} is at least as good by auPRC as every other method at every k."
    return f"Better than {first.name} by auPRC: {'; '.join(better)}."


def figure_notes(
    methods: Sequence[MethodQuality], chance: float, asked: Objective, held: Sequence[Objective]
) -> tuple[str, ...]:
    """Write sentences that explain figures which are easily misread, and say what to try.

    Args:
        methods: results by method, ``rapidin`` first.
        chance: share of relevant samples among all samples.
        asked: objective of the questions that the store's own methods were asked.
        held: objectives whose gradients the store holds.
    """
    notes = []
    for method in methods:
        if both := [at for at in method.at if _strong_at_both_ends(at, chance)]:
            at = max(both, key=lambda one: one.precision_worst.mean)
            notes.append(
                f"{method.name}, k = {at.k:,}: the auROC of {at.auroc.mean:.2f} says less than it seems, because "
                f"labelled samples are strong at both ends: {at.precision.mean:.0%} of the k best and "
                f"{at.precision_worst.mean:.0%} of the k worst have the label, which {chance:.0%} of all samples "
                "have; precision tells what was found."
            )
    own = [method for method in methods if method.name in STORE_METHODS]
    reason = None
    if any(_strong_at_both_ends(at, chance) for method in own for at in method.at):
        reason = "labelled samples are strong at both ends of the store's own scores"
    elif any(_surely_better(at) for method in methods if method.name == "bm25" for at in method.at):
        reason = "words in common (bm25) find more labelled samples than the store's own scores"
    if reason is not None:
        other: Objective = "loss" if asked == "log-odds" else "log-odds"
        purpose = {"loss": "facts and wrong words", "log-odds": "behaviours, such as a backdoor's"}[other]
        way = f"--objective {other}" if other in held else f"a store made with --objective {other}, or both,"
        notes.append(f"Try the other objective, because {reason}: {way} suits {purpose}.")
    return tuple(notes)


def _strong_at_both_ends(at: EndsQuality, chance: float) -> bool:
    """Tell whether the worst samples exceed chance at least half as far as the best, and surely.

    They do so surely if it is by three standard deviations of one random draw of k samples. The interval over
    queries does not say it, because bm25, for example, may rank the same samples last for every query.
    """
    excess = at.precision_worst.mean - chance
    by_chance = math.sqrt(chance * (1 - chance) / at.k)
    return excess > 3 * by_chance and excess >= (at.precision.mean - chance) / 2


def _surely_better(at: EndsQuality) -> bool:
    """Tell whether a method's auPRC is higher than rapidin's beyond chance."""
    return at.auprc_behind.high is not None and at.auprc_behind.high < 0
