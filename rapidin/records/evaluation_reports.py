"""Records of what evaluations found; ``--json`` prints them with these names.

Every `Interval` is printed as an object with ``mean``, ``low`` and ``high``. Seconds are wall-clock time, and
memory is counted in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BehaviourMark = Literal["field", "pattern"]
"""Sign that an answer shows a behaviour: a field of the query is true, or a regular expression matches."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over queries with its 95 % bootstrap interval.

    Attributes:
        mean: mean over the queries.
        low, high: bounds of the 95 % interval; None if there is only one query, which has no interval.
    """

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class EndsQuality:
    """Measures of Table 4 (Lin et al. 2024) at one k.

    Attributes:
        k: number of samples at each end of the ranking.
        auprc, auroc: measures of the k best and the k worst samples, see `rapidin.evaluation.metrics`.
        precision: share of relevant samples among the k best.
        precision_worst: share of relevant samples among the k worst.
        auprc_behind: auPRC of ``rapidin`` minus that of this method on the same queries; it is negative if the
            method is better.
        overlap: share of the method's k best samples that are among rapidin's k best.
    """

    k: int
    auprc: Interval
    auroc: Interval
    precision: Interval
    precision_worst: Interval
    auprc_behind: Interval
    overlap: Interval


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Precision of the k best samples."""

    k: int
    precision: Interval


@dataclass(frozen=True, slots=True)
class MethodCost:
    """Time and memory of a method (Table 2 of Lin et al. 2024).

    Attributes:
        preparation: seconds of the work on the training samples that is done once: caching for a method of the
            store, counting words or embedding texts for others; 0 if nothing can be kept.
        seconds_alone: seconds for the first query when it is asked by itself; None if it was not.
        seconds_together: seconds for each query when many are asked together.
        memory: maximum number of bytes by which the process grew; None if unknown.
        device_memory: maximum number of bytes taken on GPUs; None if none was used.
        pays_from: number of queries, asked one by one, from which rapidin's caching and searching takes less time
            than this method; None if that never happens, is unknown, or the method is one of the store itself.
        pays_from_together: the corresponding number for queries that are asked together.
        resumed: whether the scores and these figures come from earlier runs.
    """

    preparation: float
    seconds_alone: float | None
    seconds_together: float
    memory: int | None
    device_memory: int | None
    pays_from: int | None
    pays_from_together: int | None
    resumed: bool


@dataclass(frozen=True, slots=True)
class MethodQuality:
    """The result of a method in `rapidin evaluate backdoor`.

    Attributes:
        name: name of the method.
        summary: a few words about the method.
        at: measures of Table 4, by k.
        average_precision: average precision over the ranking of all samples.
        reciprocal_rank: 1 divided by the rank of the best relevant sample.
        spearman: rank correlation of the method's scores with rapidin's.
        curve: precision against k, for a plot.
        cost: time and memory that the method takes.
    """

    name: str
    summary: str
    at: tuple[EndsQuality, ...]
    average_precision: Interval
    reciprocal_rank: Interval
    spearman: Interval
    curve: tuple[CurvePoint, ...]
    cost: MethodCost


@dataclass(frozen=True, slots=True)
class CachingCost:
    """Time that it takes to compute the store's vectors.

    Attributes:
        seconds: seconds for all samples that were ranked.
        sampled: number of samples whose vectors were computed again to estimate it; 0 if the caller gave it.
    """

    seconds: float
    sampled: int


@dataclass(frozen=True, slots=True)
class BackdoorReport:
    """The result of `rapidin evaluate backdoor`.

    Attributes:
        store: path of the store.
        label: filter that marks the relevant samples.
        samples: number of samples that were ranked.
        relevant: number of samples that carry the label.
        queries: number of queries that were asked.
        generated: number of queries that the model answered itself.
        left_out: number of rows of the query file that carry another value of the label.
        attacked: name of a field, or regular expression, that tells whether a query's answer shows the behaviour;
            None if all queries count.
        attacked_by: meaning of `attacked`; None if all queries count.
        not_attacked: number of queries that were left out because their answers do not show the behaviour.
        caching: time that it takes to compute the store's vectors.
        methods: results by method, ``rapidin`` first.
        verdict: one sentence about which methods are better than rapidin.
        notes: sentences that explain figures which are easily misread, and say what to try.
    """

    store: str
    label: str
    samples: int
    relevant: int
    queries: int
    generated: int
    left_out: int
    attacked: str | None
    attacked_by: BehaviourMark | None
    not_attacked: int
    caching: CachingCost
    methods: tuple[MethodQuality, ...]
    verdict: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TracedAt:
    """Measures of Table 5 (Lin et al. 2024) at one k: shares of labelled samples among the k best.

    Attributes:
        k: number of samples at the top of the ranking.
        whole: share when the whole generation is asked about.
        span: share when only its wrong words are asked about.
        gain: `span` minus `whole`, on the same queries.
    """

    k: int
    whole: Interval
    span: Interval
    gain: Interval


@dataclass(frozen=True, slots=True)
class MethodTracing:
    """The result of a method in `rapidin evaluate trace`.

    Attributes:
        name: name of the method.
        summary: a few words about the method.
        at: measures of Table 5, by k.
        average_precision_whole: average precision over all samples when whole generations are asked about.
        average_precision_span: average precision over all samples when only wrong words are asked about.
    """

    name: str
    summary: str
    at: tuple[TracedAt, ...]
    average_precision_whole: Interval
    average_precision_span: Interval


@dataclass(frozen=True, slots=True)
class TraceReport:
    """The result of `rapidin evaluate trace`; its attributes mean what those of `BackdoorReport` mean."""

    store: str
    label: str
    samples: int
    relevant: int
    queries: int
    generated: int
    left_out: int
    methods: tuple[MethodTracing, ...]


@dataclass(frozen=True, slots=True)
class Outlook:
    """The fidelity that another projection dimension would give.

    Attributes:
        dimension: projection dimension K.
        pearson: expected correlation of stored with exact scores.
        bytes: size of a sample's vector at the store's bits.
    """

    dimension: int
    pearson: float
    bytes: int


@dataclass(frozen=True, slots=True)
class OverlapAt:
    """Share of the k best samples by exact scores that are among the k best by stored scores."""

    k: int
    overlap: Interval


@dataclass(frozen=True, slots=True)
class FidelityReport:
    """A comparison of stored scores with scores of exact gradients.

    Attributes:
        store: path of the store.
        dimension: projection dimension K.
        bits: bits per coordinate of a stored vector.
        samples: number of stored samples that were ranked.
        queries: number of other stored samples that stood for queries.
        pearson, spearman: correlations of stored with exact scores within a query, of values and of ranks.
        slope: slope of stored on exact scores; 1 means unbiased.
        signal: standard deviation of exact scores within a query.
        noise: standard deviation within a query of the difference between stored and exact scores.
        noise_times_dimension: variance of the noise times K; theory says about 1 with layer-wise normalisation.
        coding: share of the noise's variance that comes from keeping few bits.
        overlaps: shares of the best samples that are found, by k.
        outlook: expected correlations at other K, since the projection's variance is proportional to 1/K.
        suffices: whether `pearson` reaches 0.95.
        verdict: the result in words.
        seconds: seconds that the comparison took.
    """

    store: str
    dimension: int
    bits: int
    samples: int
    queries: int
    pearson: Interval
    spearman: Interval
    slope: float
    signal: float
    noise: float
    noise_times_dimension: float
    coding: float
    overlaps: tuple[OverlapAt, ...]
    outlook: tuple[Outlook, ...]
    suffices: bool
    verdict: str
    seconds: float


@dataclass(frozen=True, slots=True)
class MethodLds:
    """The quality of a method's predictions of retraining.

    Attributes:
        name: name of the method.
        summary: a few words about the method.
        lds: linear datamodeling score: mean over queries of the rank correlation over subsets.
        by_query: correlation of each query, in the order of the queries.
        seconds: seconds that scoring all queries took.
    """

    name: str
    summary: str
    lds: Interval
    by_query: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class LdsReport:
    """The result of `rapidin evaluate lds`: linear datamodeling scores of some methods.

    Attributes:
        store: path of the store.
        samples: number of training samples.
        queries: ids of the queries.
        subsets: number of models that were retrained.
        fraction: share of the samples in each subset.
        loss_mean: mean loss of the queries under the retrained models.
        loss_spread: standard deviation over the models of a query's loss, averaged over queries.
        training_seconds: seconds that retraining took in this run, without the work of earlier runs.
        work: directory of losses and logs.
        methods: results by method, in the order in which they were asked for.
    """

    store: str
    samples: int
    queries: tuple[str, ...]
    subsets: int
    fraction: float
    loss_mean: float
    loss_spread: float
    training_seconds: float
    work: str
    methods: tuple[MethodLds, ...]
