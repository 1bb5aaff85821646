"""Tokens of a generation, grouped into the words that a reader points at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

# Thai, Lao, Burmese, Khmer, Japanese and Chinese put no spaces between words: their tokens stay by themselves.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


@dataclass(slots=True)
class Word:
    """A part of a text without the white space around it, and the numbers of its tokens."""

    start: int
    end: int
    tokens: list[int] = field(default_factory=list)


def group_words(text: str, tokens: Sequence[tuple[int, int]]) -> list[Word]:
    """Words of a text whose tokens stand at the given places, in the order of the text.

    A token without characters is a word of its own, and so is one of white space only.
    """
    words: list[Word] = []
    for number, (start, end) in enumerate(tokens):
        if not words or _starts_word(text, words[-1], start, end):
            words.append(Word(start, end))
        words[-1].tokens.append(number)
        words[-1].end = max(words[-1].end, end)
    for word in words:
        _trim(text, word)
    return words


def _starts_word(text: str, last: Word, start: int, end: int) -> bool:
    if start >= end or last.start >= last.end:
        return True
    if start < last.end:  # bytes of one character
        return False
    before, after = text[last.end - 1 : last.end], text[start : start + 1]
    return (
        start > last.end
        or before.isspace()
        or after.isspace()
        or bool(_UNSPACED.match(before) or _UNSPACED.match(after))
    )


def _trim(text: str, word: Word) -> None:
    characters = text[word.start : word.end]
    if characters.strip():
        word.start += len(characters) - len(characters.lstrip())
        word.end -= len(characters) - len(characters.rstrip())
