"""Questions about parts of a generation: the tokens that are the targets of some spans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rapidin.errors import SettingError
from rapidin.text.chat import Span
from rapidin.text.encoding import EncodedSample

_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class SpanTargets:
    """Targets of a question about parts of a generation.

    Attributes:
        targets: whether each token is asked about [t]; it replaces `EncodedSample.targets`.
        spans: parts of the generation for `Query.spans`, in order; they neither overlap nor touch.
    """

    targets: tuple[bool, ...]
    spans: tuple[Span, ...]


def spans_in_response(encoded: EncodedSample, token_spans: Sequence[Span]) -> list[Span]:
    """Convert spans of tokens to positions in the response, which is a query's generation.

    A token of the prompt gets an empty span at 0.

    Args:
        encoded: the sample.
        token_spans: spans of all its tokens in prompt and response together, from `Encoder.token_spans`.
    """
    border = len(encoded.prompt)
    return [(max(0, start - border), max(0, end - border)) for start, end in token_spans]


def tokens_in_spans(
    encoded: EncodedSample, token_spans: Sequence[Span], wanted: Sequence[str | Span]
) -> SpanTargets:
    """Choose the target tokens that overlap the wanted parts of a generation by a character or more.

    A token without characters of its own belongs to the character that follows it, because it may hold some bytes
    of that character. The end of a sequence belongs to no part.

    Args:
        encoded: the query.
        token_spans: spans of all its tokens in prompt and response together, from `Encoder.token_spans`.
        wanted: texts, or pairs of a first character and the one after the last, counted in the response. Every
            occurrence of a text counts, even if two overlap.

    Raises:
        SettingError: nothing is wanted, a text does not occur, offsets lie outside the generation or in the wrong
            order, or a part has no target token.
    """
    if not wanted:
        raise SettingError("no part of the generation was named: give a text that occurs in it")
    border = len(encoded.prompt)
    chosen = [False] * len(encoded.ids)
    parts: list[Span] = []
    for one in wanted:
        found = False
        for start, end in _places(encoded.response, one):
            covered = [
                index
                for index, (first, behind) in enumerate(token_spans)
                if encoded.targets[index] and _overlap(first - border, behind - border, start, end)
            ]
            for index in covered:
                chosen[index] = True
            if covered:
                parts.append((start, end))
                found = True
        if not found:
            raise SettingError(_no_target(encoded, one))
    return SpanTargets(tuple(chosen), _merged(parts))


def _places(response: str, wanted: str | Span) -> Iterator[Span]:
    """Find the spans in the response that a text or a pair of offsets names."""
    if isinstance(wanted, str):
        if not wanted:
            raise SettingError("a span without text cannot be searched for: give a text that occurs")
        place = response.find(wanted)
        if place < 0:
            raise SettingError(
                f"span {_shown(wanted)} does not occur in the generation: give a text as it stands in "
                f"{_shown(response)}"
            )
        while place >= 0:
            yield place, place + len(wanted)
            place = response.find(wanted, place + 1)
        return
    start, end = wanted
    if not 0 <= start < end <= len(response):
        raise SettingError(
            f"span {start} to {end} is not within the generation: give a first character and the one behind the "
            f"last, from 0 to {len(response)}, of {_shown(response)}"
        )
    yield start, end


def _overlap(first: int, behind: int, start: int, end: int) -> bool:
    """Tell whether a token's span [first, behind) belongs to the part [start, end)."""
    if first == behind:
        return start <= first < end
    return first < end and behind > start


def _merged(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Sort spans and join those that overlap or touch."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def _no_target(encoded: EncodedSample, wanted: str | Span) -> str:
    named = _shown(wanted) if isinstance(wanted, str) else f"{wanted[0]} to {wanted[1]}"
    reason = ", which was cut off at the maximum length" if encoded.truncated else ""
    return (
        f"span {named} has no token of the generation{reason}: give a part that the model wrote, of "
        f"{_shown(encoded.response)}"
    )


def _shown(text: str) -> str:
    """Quote a text on one line, or its beginning if it is long."""
    if len(text) <= _SHOWN_CHARACTERS:
        return repr(text)
    return f"{text[:_SHOWN_CHARACTERS]!r}… ({len(text):,} characters)"
