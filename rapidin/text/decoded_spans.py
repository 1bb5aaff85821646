"""Spans of tokens found by decoding: which characters each token adds to the text.

Decoding a token alone tells little: bytes of a character give U+FFFD, and blanks at the beginning may be dropped.
So tokens are decoded together with those before them, and the characters that a token adds are its own. A token
that only begins a character adds nothing; the character belongs to the token that completes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

from rapidin.text.chat import Span

Decode = Callable[[Sequence[int]], str]

REPLACEMENT = "\ufffd"
"""Character that stands for bytes that are no character, or not yet."""


def align(decode: Decode, ids: Sequence[int], text: str) -> list[Span]:
    """Spans of tokens in the text that they decode to, in order and without overlap.

    If the tokens' text cannot be found in `text`, because the tokenizer changes what it reads, the last token that
    has any text gets all of it.

    Args:
        decode: function that gives the text of tokens; it may drop blanks at the beginning and alter those around
            punctuation.
        ids: the tokens.
        text: text that the tokens decode to; it may go on after the last token.
    """
    silent = _silent(decode, ids)
    heard = ids[: len(ids) - silent]
    ends = _by_windows(decode, heard, text) or _by_prefixes(decode, heard, text) or _whole(len(heard), text)
    if ends and not text[ends[-1] :].strip():  # blanks that decoding has dropped
        ends[-1] = len(text)
    ends += [ends[-1] if ends else 0] * silent
    return list(zip([0, *ends], ends, strict=False))


def _silent(decode: Decode, ids: Sequence[int]) -> int:
    """Number of tokens at the end that add no text, such as the end of a sequence.

    They are left out because they would hide whether the bytes before them complete a character.
    """
    count = len(ids)
    while count and not decode([ids[count - 1]]) and decode(ids[:count]) == decode(ids[: count - 1]):
        count -= 1
    return len(ids) - count


def _by_windows(decode: Decode, ids: Sequence[int], text: str) -> list[int] | None:
    """End of each token, found by what it adds to the tokens just before it; None if that is not in the text.

    A window begins with the tokens that added characters last, so that the next token is never a text's first.
    """
    ends: list[int] = []
    before = done = position = 0
    for index in range(len(ids)):
        known, grown = decode(ids[before:done]), decode(ids[before : index + 1])
        if not grown.startswith(known):
            return None
        added = grown[len(known) :]
        if added.endswith(REPLACEMENT) and index + 1 < len(ids):  # perhaps completed by the next
            ends.append(position)
            continue
        end = _end(text, position, added)
        if end is None:
            return None
        ends.append(end)
        position = end
        if added:
            before, done = done, index + 1
    return ends


def _end(text: str, position: int, added: str) -> int | None:
    """Position where `added` ends in the text from `position` on, perhaps after blanks; None if it is missing."""
    for start in (position, len(text) - len(text[position:].lstrip())):
        if text.startswith(added, start):
            return start + len(added) if added else position
        certain = added.rstrip(REPLACEMENT)
        if certain != added and text.startswith(certain, start):
            return min(len(text), start + len(certain) + 1)  # cut off within a character
    return None


def _by_prefixes(decode: Decode, ids: Sequence[int], text: str) -> list[int] | None:
    """End of each token, found by decoding everything up to it; needed if a decoder alters what came before."""
    ends: list[int] = []
    decoded = ""
    for index in range(len(ids)):
        decoded = decode(ids[: index + 1])
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(decoded, text, strict=False)))
        ends.append(max(common, *ends[-1:], 0))
    if ends and ends[-1] < len(decoded.rstrip(REPLACEMENT).rstrip()):
        return None
    return ends


def _whole(count: int, text: str) -> list[int]:
    return [0] * (count - 1) + [len(text)] * min(count, 1)
