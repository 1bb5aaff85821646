"""Spans of tokens, found by decoding: the characters that each token adds to the text.

Decoding a single token is not enough, because some bytes of a character give U+FFFD, and a blank at the beginning
may be dropped. So a token is decoded together with the tokens before it, and the characters that it adds are its
span. A token that only begins a character adds nothing; the character belongs to the token that completes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

from rapidin.text.chat import Span

Decode = Callable[[Sequence[int]], str]
"""Function that gives the text of tokens."""

REPLACEMENT = "\ufffd"
"""Character that stands for bytes that are not a character, or only the beginning of one."""


def align(decode: Decode, ids: Sequence[int], text: str) -> list[Span]:
    """Find the spans of tokens in the text that they decode to, in order and without overlap.

    If the tokens' text is not found in `text`, because the tokenizer changes the texts that it reads, the last
    token that has any text gets the whole text.

    Args:
        decode: function that gives the text of tokens; it may drop blanks at the beginning and alter those around
            punctuation.
        ids: the tokens.
        text: text that the tokens decode to; it may go on after the last token.
    """
    silent = _silent(decode, ids)
    heard = ids[: len(ids) - silent]
    ends = _by_windows(decode, heard, text) or _by_prefixes(decode, heard, text) or _whole(len(heard), text)
    if ends and not text[ends[-1] :].strip():  # only blanks are left, which decoding has dropped
        ends[-1] = len(text)
    ends += [ends[-1] if ends else 0] * silent
    return list(zip([0, *ends], ends, strict=False))


def _silent(decode: Decode, ids: Sequence[int]) -> int:
    """Count the tokens at the end that add no text, such as the end of a sequence.

    They are left out, because with them one could not see whether the bytes before them complete a character.
    """
    count = len(ids)
    while count and not decode([ids[count - 1]]) and decode(ids[:count]) == decode(ids[: count - 1]):
        count -= 1
    return len(ids) - count


def _by_windows(decode: Decode, ids: Sequence[int], text: str) -> list[int] | None:
    """Find the end of each token from the characters that it adds to the tokens just before it.

    These tokens form a window, which begins with the last tokens that added characters. So the next token is never
    the first of a decoded text. The result is None if added characters are not in `text`.
    """
    ends: list[int] = []
    before = done = position = 0
    for index in range(len(ids)):
        known, grown = decode(ids[before:done]), decode(ids[before : index + 1])
        if not grown.startswith(known):
            return None
        added = grown[len(known) :]
        if added.endswith(REPLACEMENT) and index + 1 < len(ids):  # the next token may complete the character
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
    """Find the end of `added` in the text at `position`, or after blanks there; None if it is missing."""
    for start in (position, len(text) - len(text[position:].lstrip())):
        if text.startswith(added, start):
            return start + len(added) if added else position
        certain = added.rstrip(REPLACEMENT)
        if certain != added and text.startswith(certain, start):
            return min(len(text), start + len(certain) + 1)  # tokens were cut off within a character
    return None


def _by_prefixes(decode: Decode, ids: Sequence[int], text: str) -> list[int] | None:
    """Find the end of each token by decoding all tokens up to it; needed if a decoder alters earlier text."""
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
    """Give the whole text to the last of `count` tokens."""
    return [0] * (count - 1) + [len(text)] * min(count, 1)
