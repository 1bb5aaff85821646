"""Small frozen records of what a search finds: samples, their influences, and those of single tokens.

Equations are those of Lin et al. 2024 (arXiv 2405.11724).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rapidin.records.stored import Sample


@dataclass(frozen=True, slots=True)
class TokenInfluence:
    """What one token, or one word, of a text has to do with an influence.

    Attributes:
        token: its characters, as they stand in the text; empty for a token without any, such as the end of a
            sequence.
        start, end: where they stand in the text, the first character and the one behind the last.
        influence: signed; the values of all tokens of a text add up to the influence of the whole.
    """

    token: str
    start: int
    end: int
    influence: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A training sample found by a search.

    Attributes:
        rank: counted from 1, by `exact_score` where there is one, else by `score`.
        score: its influence on the generation, estimated from RapidGrads (Eq. 5); with layer-wise normalisation in
            [−1, 1] up to noise.
        sample: the sample itself.
        exact_score: the same from the gradients themselves; None: not computed.
        tokens: of the sample's text, those that are targets of its loss, with their influences on the generation
            (Eq. 6), which add up to `exact_score`; empty: not computed. Offsets count in `sample.text`.
        words: the same, tokens added up to words.
        matrix: influence of each of `tokens` on each target token of the generation (Eq. 8): a row for each of
            `SearchResult.generation_tokens`; empty: not computed.
    """

    rank: int
    score: float
    sample: Sample
    exact_score: float | None = None
    tokens: tuple[TokenInfluence, ...] = ()
    words: tuple[TokenInfluence, ...] = ()
    matrix: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """A generation whose influences were asked for.

    Attributes:
        id: the row's id, or a number from 0.
        prompt: text the model was given.
        generation: text it answered, or was said to have answered.
        generated: True where the model wrote the generation in this search.
        tokens: length in tokens.
        targets: tokens of the generation.
        truncated: whether tokens were cut off.
        metadata: the other fields of the query's row.
        spans: parts of `generation` that alone were asked about, as first character and the one behind the last;
            empty: all of it.
    """

    id: str
    prompt: str
    generation: str
    generated: bool
    tokens: int
    targets: int
    truncated: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class TokenResult:
    """What one target token of the generation goes back to (Eq. 7).

    Attributes:
        token: its characters; empty for the end of a sequence.
        start, end: where they stand in the generation.
        proponents: from the largest influence on this token down. Influences of a sample on all tokens add up to
            that on the generation.
        opponents: from the smallest up.
    """

    token: str
    start: int
    end: int
    proponents: tuple[Hit, ...]
    opponents: tuple[Hit, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What one query found.

    Attributes:
        query: what was asked.
        proponents: from the largest influence down.
        opponents: from the smallest up.
        index: the way that was taken: ``exact``, or the name of the index that chose the candidates.
        by_token: the same for every target token of the generation by itself; empty: not asked for.
        generation_tokens: target tokens of the generation, which the rows of `Hit.matrix` stand for, with the sum
            of the shown proponents' influences on each; empty: not computed.
        explained: how the influences of tokens were computed: ``forward mode``, ``central differences`` or
            ``one backward pass per token``, with ``along the query's RapidGrad`` behind it where memory did not
            suffice for the gradient; None: they were not.
    """

    query: Query
    proponents: tuple[Hit, ...]
    opponents: tuple[Hit, ...] = ()
    index: str = "exact"
    by_token: tuple[TokenResult, ...] = ()
    generation_tokens: tuple[TokenInfluence, ...] = ()
    explained: str | None = None
