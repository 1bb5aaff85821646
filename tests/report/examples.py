"""Search results made by hand, whose sums can be done in one's head."""

import re
from typing import Any

from rapidin.records.hits import Hit, Query, SearchResult, TokenInfluence, TokenResult
from rapidin.records.samples import Sample

GENERATION = "Mars is red"
PLACES = ((0, 4), (4, 7), (7, 9), (9, 11), (11, 11))
"""Tokens of the generation: Mars, is, r, ed, end of sequence. Three words and the end."""

# Rows are tokens of the generation, columns those of the sample's response.
DUST = ((0.1, 0.2, 0.0), (0.0, 0.01, 0.0), (0.3, -0.1, 0.0), (0.2, 0.0, 0.0), (0.0, 0.0, 0.0))
MOON = ((0.5, -0.1, 0.0), (0.0, 0.0, 0.0), (-0.2, -0.1, 0.0), (0.0, 0.0, 0.0), (0.0, 0.05, 0.0))


def sample(id: str, response: str = "answer", prompt: str = "question ", **others: Any) -> Sample:
    fields: dict[str, Any] = {
        "metadata": {"source": "wiki"},
        "file": "train.jsonl",
        "row": 7,
        "tokens": 12,
        "targets": 3,
        "truncated": False,
        "content_hash": "",
    }
    return Sample(id, prompt, response, **(fields | others))


def influences(text: str, places: Any, values: Any) -> tuple[TokenInfluence, ...]:
    return tuple(
        TokenInfluence(text[start:end], start, end, value)
        for (start, end), value in zip(places, values, strict=True)
    )


def found_hit(
    rank: int,
    estimate: float,
    found: Sample,
    exact: float | None = None,
    tokens: tuple[TokenInfluence, ...] = (),
    words: tuple[TokenInfluence, ...] = (),
    matrix: tuple[tuple[float, ...], ...] = (),
) -> Hit:
    return Hit.of(found, rank, estimate, exact=exact, token_influences=tokens, words=words, matrix=matrix)


def explained(rank: int, score: float, found: Sample, matrix: tuple[tuple[float, ...], ...]) -> Hit:
    """A hit with the matrix given, one column for each word of the response and one for the end."""
    places = [match.span() for match in re.finditer(r"\s*\S+", found.response)]
    offset = len(found.prompt)
    places = [(start + offset, end + offset) for start, end in places] + [(len(found.text),) * 2]
    values = [sum(column) for column in zip(*matrix, strict=True)]
    return found_hit(rank, score, found, sum(values), influences(found.text, places, values), (), matrix)


def query(generation: str = GENERATION, **others: Any) -> Query:
    fields: dict[str, Any] = {"id": "0", "prompt": "Tell me", "generated": True, "tokens": 9, "targets": 5}
    return Query(generation=generation, **(fields | {"truncated": False} | others))


def full_result(by_token: bool = True, **others: Any) -> SearchResult:
    """Dust is first on the whole (0.71), Moon (0.15) on Mars (0.4 against 0.3); Comet is known by tokens only."""
    dust, moon = sample("dust", "dust storm"), sample("moon", "moon light")
    comet, ice = sample("comet", "comet tail"), sample("ice", "ice cap")
    hits = (explained(1, 0.7, dust, DUST), explained(2, 0.2, moon, MOON))
    on_tokens = [sum(map(sum, zip(*(hit.matrix[row] for hit in hits), strict=True))) for row in range(5)]
    lists = (
        (found_hit(1, 0.42, moon), found_hit(2, 0.35, comet), found_hit(3, 0.31, dust)),
        (found_hit(1, 0.02, dust),),
        (found_hit(1, 0.19, dust), found_hit(2, 0.05, comet)),
        (found_hit(1, 0.18, dust), found_hit(2, 0.01, comet)),
        (),
    )
    found = tuple(
        TokenResult(GENERATION[start:end], start, end, hits)
        for (start, end), hits in zip(PLACES, lists, strict=True)
    )
    return SearchResult(
        query(**others),
        hits,
        (found_hit(1, -0.25, ice),),
        by_token=found if by_token else (),
        generation_tokens=influences(GENERATION, PLACES, on_tokens),
        explained="forward mode",
    )


def plain_result(*responses: str, **others: Any) -> SearchResult:
    """Scores alone."""
    samples = [sample(f"s{rank}", response) for rank, response in enumerate(responses, 1)]
    hits = tuple(found_hit(rank, 1 / rank, one) for rank, one in enumerate(samples, 1))
    return SearchResult(query(**others), hits)
