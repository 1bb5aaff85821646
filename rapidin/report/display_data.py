"""Search results as the plain data that the page's script reads; data.js describes its shapes."""

from __future__ import annotations

import base64
import json
import math
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rapidin.records import Hit, Sample, SearchResult, TokenInfluence, TokenResult
from rapidin.report.own_prompts import own_parts
from rapidin.report.utf16_offsets import Utf16Offsets
from rapidin.text import Word, group_into_words


class SampleTable:
    """The samples of a page, each once, even if it is in several lists.

    Args:
        own: begin and end of each prompt's own part, by the prompt.

    Attributes:
        rows: the samples as plain data; a sample's number is its position here.
    """

    def __init__(self, own: Mapping[str, tuple[int, int]]) -> None:
        self._own = own
        self._places: dict[tuple[str, str, str, int], int] = {}
        self.rows: list[dict[str, Any]] = []

    def place(self, sample: Sample) -> int:
        """Return the sample's number on the page; a new sample is added."""
        key = (sample.id, sample.content_hash, sample.file, sample.row)
        if key not in self._places:
            self._places[key] = len(self.rows)
            self.rows.append(self._row(sample))
        return self._places[key]

    def _row(self, sample: Sample) -> dict[str, Any]:
        units = Utf16Offsets(sample.text)
        return {
            "id": sample.id,
            "text": sample.text,
            "split": units(len(sample.prompt)),
            "own": units.span(*self._own[sample.prompt]),
            "metadata": _metadata(sample.metadata),
            "file": Path(sample.file).name,  # without its directory, because reports are sent to others
            "row": sample.row,
            "tokens": sample.tokens,
            "targets": sample.targets,
            "truncated": sample.truncated,
        }


def page_data(results: Sequence[SearchResult]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Turn results into the page's samples and its queries, which name samples by their number."""
    prompts = chain(
        (result.query.prompt for result in results),
        (hit.prompt for result in results for hit in _all_hits(result)),
    )
    own = own_parts(prompts)
    table = SampleTable(own)
    queries = [_query(result, table, own) for result in results]
    return table.rows, queries


def _query(result: SearchResult, table: SampleTable, own: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    query = result.query
    units = Utf16Offsets(query.generation)
    tokens = _target_tokens(result)
    words = group_into_words(query.generation, [place for place, _, _ in tokens])
    details: dict[int, dict[str, Any]] = {}
    for hit in (*result.proponents, *result.opponents):
        details.setdefault(table.place(hit), _hit(hit, len(result.generation_tokens)))
    return {
        "id": query.id,
        "prompt": query.prompt,
        "own": Utf16Offsets(query.prompt).span(*own[query.prompt]),
        "generation": query.generation,
        "generated": query.generated,
        "tokens": query.tokens,
        "targets": query.targets,
        "truncated": query.truncated,
        "metadata": _metadata(query.metadata),
        "spans": [units.span(*span) for span in query.spans],
        "index": result.index,
        "explained": result.explained,
        "words": [[*units.span(*_without_blanks(query.generation, word)), list(word.tokens)] for word in words],
        "rows": [row for _, row, _ in tokens],
        "influences": [_number(token.influence) for token in result.generation_tokens],
        "proponents": [table.place(hit) for hit in result.proponents],
        "opponents": [table.place(hit) for hit in result.opponents],
        "byToken": [_token_hits(found, table, details) for _, _, found in tokens] if result.by_token else None,
        "details": details,
    }


def _without_blanks(text: str, word: Word) -> tuple[int, int]:
    """Find where a word begins and ends without the white space around it; a word of white space keeps it."""
    characters = text[word.start : word.end]
    if not characters.strip():
        return word.start, word.end
    return (
        word.start + len(characters) - len(characters.lstrip()),
        word.end - len(characters) + len(characters.rstrip()),
    )


_TargetToken = tuple[tuple[int, int], int | None, TokenResult | None]


def _target_tokens(result: SearchResult) -> list[_TargetToken]:
    """List the target tokens of the generation in order: span, row of the matrices, hits of the token."""
    rows = _by_place(result.generation_tokens)
    found = _by_place(result.by_token)
    places = sorted({*rows, *found})
    return [
        (place[:2], rows.get(place), result.by_token[found[place]] if place in found else None) for place in places
    ]


def _by_place(tokens: Iterable[TokenInfluence | TokenResult]) -> dict[tuple[int, int, int], int]:
    """Map spans to positions of tokens; a third number separates tokens of one span (bytes of a character)."""
    places: dict[tuple[int, int, int], int] = {}
    for index, token in enumerate(tokens):
        number = 0
        while (token.start, token.end, number) in places:
            number += 1
        places[token.start, token.end, number] = index
    return places


def _hit(hit: Hit, rows: int) -> dict[str, Any]:
    parts = hit.token_influences or hit.words
    widths = {len(row) for row in hit.matrix}
    if hit.matrix and (len(hit.matrix) != rows or widths != {len(hit.token_influences)}):
        raise ValueError(f"sample {hit.id!r}: its matrix has other rows or columns than there are tokens")
    return {
        "rank": hit.rank,
        "estimate": _number(hit.estimate),
        "exact": _number(hit.exact),
        "parts": _parts(hit, parts),
        "influences": [_number(part.influence) for part in parts],
        "matrix": _packed(hit.matrix),
    }


def _token_hits(
    found: TokenResult | None, table: SampleTable, details: dict[int, dict[str, Any]]
) -> list[list[Any]]:
    """List the samples behind one token: number, score, and influences of the sample's tokens on it, if known."""
    entries: dict[int, list[Any]] = {}
    for hit in (*found.proponents, *found.opponents) if found else ():
        place = table.place(hit)
        known = details.setdefault(
            place,
            {"rank": None, "estimate": None, "exact": None, "parts": [], "influences": [], "matrix": None},
        )
        if hit.token_influences and not known["parts"]:
            known["parts"] = _parts(hit, hit.token_influences)
        tokens = hit.token_influences
        fits = tokens and len(tokens) == len(known["parts"])
        influences = [_number(token.influence) for token in tokens] if fits else None
        entries.setdefault(place, [place, _number(hit.score), influences])
    return list(entries.values())


def _parts(sample: Sample, tokens: Sequence[TokenInfluence]) -> list[list[int]]:
    units = Utf16Offsets(sample.text)
    return [units.span(token.start, token.end) for token in tokens]


def _packed(matrix: Sequence[Sequence[float]]) -> str | None:
    """Write a matrix as little-endian 32-bit numbers in base64: half as long as digits, and quick to read."""
    if not matrix:
        return None
    numbers = array("f", chain.from_iterable(matrix))
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")


def _number(value: float | None) -> float | None:
    """Round a number to six digits; None if it is not finite, because JSON has no such numbers."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _metadata(fields: Mapping[str, Any]) -> list[list[str]]:
    return [
        [str(name), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)]
        for name, value in fields.items()
    ]


def _all_hits(result: SearchResult) -> Iterable[Hit]:
    yield from (*result.proponents, *result.opponents)
    for token in result.by_token:
        yield from (*token.proponents, *token.opponents)
