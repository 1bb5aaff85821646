"""Records of what a search finds: samples, their influences, and the influences of single tokens.

Equations are those of Lin et al. 2024 (arXiv 2405.11724).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from pydantic import computed_field

from rapidin.records.samples import Sample, Span, WhereComputed
from rapidin.settings import Objective

Measure = Literal["influence", "cosine", "inner product"]
"""Meaning of a score.

``influence``: predicted change of the generation's mean loss, with the curvature of the training loss. ``cosine``:
mean over parameter tensors of the cosine between two gradients. ``inner product``: inner product of two gradients,
which a store has that was made with ``--no-normalisation``.
"""


@dataclass(frozen=True, slots=True)
class TokenInfluence:
    """The part that one token, or one word, of a text has in an influence.

    Attributes:
        token: characters of the token as they are in the text; empty for a token that has none, such as the end of
            a sequence.
        start, end: offsets in the text of the token's first character, and after its last character.
        influence: signed influence; the values of all tokens of a text add up to the influence of the whole.
    """

    token: str
    start: int
    end: int
    influence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit(Sample):
    """A training sample found by a search, with its influence on the generation.

    Attributes:
        rank: place by `score` among the proponents, or among the opponents, counted from 1.
        estimate: influence estimated from RapidGrads (Eq. 5); as a cosine it lies in [−1, 1] up
            to noise.
        exact: influence computed from the gradients themselves; None if it was not computed.
        token_influences: target tokens of the sample's text with their influences on the generation (Eq. 6), which
            add up to `exact`; empty if they were not computed. Offsets count in `text`.
        words: words of the sample's text, with the influences of their tokens added up.
        matrix: influence of each of `token_influences` on each target token of the generation (Eq. 8), with a row
            for each of `SearchResult.generation_tokens`; empty if it was not computed.
    """

    rank: int
    estimate: float
    exact: float | None = None
    token_influences: WhereComputed[tuple[TokenInfluence, ...]] = ()
    words: WhereComputed[tuple[TokenInfluence, ...]] = ()
    matrix: WhereComputed[tuple[tuple[float, ...], ...]] = ()

    @classmethod
    def of(cls, sample: Sample, rank: int, estimate: float, **computed: Any) -> Self:
        """Make a hit from a sample; `computed` are the other fields of a hit."""
        own = {one.name: getattr(sample, one.name) for one in fields(Sample)}
        return cls(**own, rank=rank, estimate=estimate, **computed)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def score(self) -> float:
        """The influence that hits are ranked by: the exact one if it was computed, else the estimate."""
        return self.estimate if self.exact is None else self.exact


@dataclass(frozen=True, slots=True)
class Query:
    """A generation whose influences were asked for.

    Attributes:
        id: id of the query's row, or a number from 0.
        prompt: text that the model was given.
        generation: text that the model answered, now or according to the caller.
        generated: whether the model wrote the generation in this search.
        tokens: number of tokens of prompt and generation.
        targets: number of tokens of the generation.
        truncated: whether tokens were cut off.
        metadata: the other fields of the query's row.
        spans: parts of `generation` that the search is limited to; empty if it asks about the whole generation.
    """

    id: str
    prompt: str
    generation: str
    generated: bool
    tokens: int
    targets: int
    truncated: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenResult:
    """The training samples behind one target token of the generation (Eq. 7).

    Attributes:
        token: characters of the token; empty for the end of a sequence.
        start, end: offsets in the generation of the token's first character, and after its last character.
        proponents: hits from the largest influence on this token down. A sample's influences on all tokens add up
            to its influence on the generation.
        opponents: hits from the smallest influence up.
    """

    token: str
    start: int
    end: int
    proponents: tuple[Hit, ...]
    opponents: tuple[Hit, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The samples that one query found.

    Attributes:
        query: the query that was asked.
        proponents: hits from the largest influence down.
        opponents: hits from the smallest influence up; empty unless asked for.
        index: ``exact``, or the name of the index that chose the candidates.
        measure: meaning of the scores, see `rapidin.settings.Measure`.
        curvature: version of the store's curvature, if the scores are influences; scores of different versions do
            not compare.
        objective: objective of the query that was differentiated.
        by_token: hits of every target token of the generation by itself; empty unless asked for.
        generation_tokens: target tokens of the generation, one for each row of `Hit.matrix`, with the sum of the
            shown proponents' influences on each; empty if they were not computed.
        explained: method by which token influences were computed: ``forward mode``, ``central differences`` or
            ``one backward pass per token``, followed by ``along the query's RapidGrad`` if memory did not suffice
            for the gradient. If the scores are influences, it is followed by ``along the query's gradient,
            corrected by its RapidGrad``; with `exact_curvature` by ``along the query's gradient, corrected by the
            probes' gradients``, and ``, but for N of M by their RapidGrads`` if N probes could not be computed
            again; or by ``along the query's corrected RapidGrad`` if memory did not suffice for the gradient. None
            if they were not computed.
    """

    query: Query
    proponents: tuple[Hit, ...]
    opponents: tuple[Hit, ...] = ()
    index: str = "exact"
    measure: Measure = "cosine"
    curvature: str | None = None
    objective: Objective = "loss"
    by_token: WhereComputed[tuple[TokenResult, ...]] = ()
    generation_tokens: WhereComputed[tuple[TokenInfluence, ...]] = ()
    explained: WhereComputed[str | None] = None
