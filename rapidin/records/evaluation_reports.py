"""Small frozen records of what evaluations found; ``--json`` prints them with these names.

Every `Estimate` is an object with ``mean``, ``low`` and ``high``, the bounds of its 95 % interval over queries
(null with a single query). Seconds are wall-clock time, memory is in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from rapidin.evaluation import Estimate


@dataclass(frozen=True, slots=True)
class EndsQuality:
    """Table 4's measures at one k.

    Attributes:
        k: samples at each end.
        auprc, auroc: of the k best and the k worst, see `measures.ends_measures`.
        precision: share of relevant samples among the k best.
        auprc_behind: how much less auPRC the method has than ``rapidin`` on the same queries; below 0: more.
        overlap: share of the k best that are among rapidin's k best.
    """

    k: int
    auprc: Estimate
    auroc: Estimate
    precision: Estimate
    auprc_behind: Estimate
    overlap: Estimate


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Precision of the k best samples."""

    k: int
    precision: Estimate


@dataclass(frozen=True, slots=True)
class MethodCost:
    """Table 2's figures of a method.

    Attributes:
        preparation: seconds of the work on the training samples that is done once: for a method of the store its
            caching, for others words, embeddings; 0 where nothing can be kept.
        seconds_alone: of the first query, asked by itself; None: it was not.
        seconds_together: of each query, when many are asked together.
        memory: by which the process grew at most; None: unknown.
        device_memory: the same of GPUs; None: none was used.
        pays_from: number of queries, asked one by one, from which rapidin's caching and searching takes less time
            than this method; None: never, unknown, or it is a method of the store itself.
        pays_from_together: the same where all are asked together.
        resumed: whether the scores, and these figures, are of former runs.
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
    """What a method found.

    Attributes:
        name: of the method.
        summary: a few words about it.
        at: Table 4, by k.
        average_precision: over the ranking of all samples.
        reciprocal_rank: 1 by the rank of the best relevant sample.
        spearman: rank correlation of its scores with rapidin's.
        curve: precision against k, as it is plotted.
        cost: time and memory.
    """

    name: str
    summary: str
    at: tuple[EndsQuality, ...]
    average_precision: Estimate
    reciprocal_rank: Estimate
    spearman: Estimate
    curve: tuple[CurvePoint, ...]
    cost: MethodCost


@dataclass(frozen=True, slots=True)
class Caching:
    """What making the store's vectors takes.

    Attributes:
        seconds: for all samples that were ranked.
        sampled: samples that were computed anew to estimate it; 0: the user has said it.
    """

    seconds: float
    sampled: int


@dataclass(frozen=True, slots=True)
class BackdoorReport:
    """What `rapidin evaluate backdoor` found.

    Attributes:
        store: its path.
        label: what marks the relevant samples.
        samples: that were ranked.
        relevant: how many of them carry the label.
        queries: that were asked.
        generated: how many of these the model answered itself.
        left_out: rows of the file that carry another value of the label.
        caching: of the store.
        methods: ``rapidin`` first.
        verdict: one sentence.
    """

    store: str
    label: str
    samples: int
    relevant: int
    queries: int
    generated: int
    left_out: int
    caching: Caching
    methods: tuple[MethodQuality, ...]
    verdict: str


@dataclass(frozen=True, slots=True)
class TracedAt:
    """Table 5 at one k: share of labelled samples among the k best.

    Attributes:
        k: samples.
        whole: asked by the whole generation.
        span: asked by its wrong words alone.
        gain: the second less the first, on the same queries.
    """

    k: int
    whole: Estimate
    span: Estimate
    gain: Estimate


@dataclass(frozen=True, slots=True)
class MethodTracing:
    """What a method found of the samples behind wrong words.

    Attributes:
        name: of the method.
        summary: a few words about it.
        at: Table 5, by k.
        average_precision_whole, average_precision_span: over the ranking of all samples.
    """

    name: str
    summary: str
    at: tuple[TracedAt, ...]
    average_precision_whole: Estimate
    average_precision_span: Estimate


@dataclass(frozen=True, slots=True)
class TraceReport:
    """What `rapidin evaluate trace` found; attributes as of `BackdoorReport`."""

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
    """What another number K would give.

    Attributes:
        dimension: K.
        pearson: expected correlation of stored with exact scores.
        bytes: of a sample's vector, at the store's bits.
    """

    dimension: int
    pearson: float
    bytes: int


@dataclass(frozen=True, slots=True)
class OverlapAt:
    """Share of the exactly k best samples that are among the k best by stored scores."""

    k: int
    overlap: Estimate


@dataclass(frozen=True, slots=True)
class FidelityReport:
    """How near stored scores are to those of exact gradients.

    Attributes:
        store: its path.
        dimension: K.
        bits: per number.
        samples: stored samples that were compared.
        queries: other stored samples that stood for queries.
        pearson, spearman: correlations of stored with exact scores, and of their ranks, within a query.
        slope: of stored on exact scores; 1: unbiased.
        signal: standard deviation of exact scores, within a query.
        noise: standard deviation of stored less exact scores, within a query.
        noise_times_dimension: variance of the noise times K; about 1 with layer-wise normalisation (theory).
        coding: share of the noise's variance that is due to keeping few bits.
        overlaps: of the best samples.
        outlook: expected at other K, where the projection's variance goes as 1/K.
        suffices: whether `pearson` reaches 0.95.
        verdict: in words.
        seconds: of the comparison.
    """

    store: str
    dimension: int
    bits: int
    samples: int
    queries: int
    pearson: Estimate
    spearman: Estimate
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
