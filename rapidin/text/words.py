"""Tokens grouped into words as people see them; terminal, JSON and page all use this definition of a word.

A word consists of letters and digits, with apostrophes and hyphens between letters (don't, well-known) and points
and commas between digits (3.14). Every other character is a word of its own: punctuation, line ends, and
characters of scripts that put no blanks between words; in these scripts each token is a word. Two things are never
divided:

* A group that people see as a single character: a letter with its accents, a flag, an emoji of several parts.
* A token. So a token that holds several words is one entry. A word includes the blank in front of it, whether that
  is part of the word's token, as for most tokenizers, or a token of its own.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rapidin.records import TokenInfluence

_BETWEEN_LETTERS = frozenset("'’-‐‑·")
_BETWEEN_DIGITS = frozenset(".,'’٫٬")
_WITHOUT_BLANKS = (
    *(
        "CJK",
        "HIRAGANA",
        "KATAKANA",
        "KATAKANA-HIRAGANA",
        "HALFWIDTH",
        "BOPOMOFO",
        "IDEOGRAPHIC",
        "NUSHU",
        "TANGUT",
    ),
    *("THAI", "LAO", "KHMER", "MYANMAR", "TAI", "JAVANESE", "BALINESE", "YI"),
)
"""First words of the names of characters in scripts that put no blanks between words."""
_JOINER = "\u200d"


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text, with the blank in front of it if its tokens include that blank.

    Attributes:
        start: position of the word's first character.
        end: position after its last character.
        tokens: positions of its tokens in the sequence that was grouped.
    """

    start: int
    end: int
    tokens: tuple[int, ...]


def group_into_words(text: str, spans: Sequence[tuple[int, int]]) -> list[Word]:
    """Group tokens into words.

    Args:
        text: text that the tokens stand for.
        spans: position of each token's first character and the position after its last one, in order and without
            overlap; the tokens need not cover the whole text. A token with an empty span joins the token that
            begins there, because it may hold some bytes of the character that follows.

    Returns:
        Words in order. Tokens with empty spans that no character follows, such as the end of a sequence, form one
        word without characters, which comes last.
    """
    words: list[Word] = []
    word: list[int] = []  # tokens of the present word
    waiting: list[int] = []  # tokens without characters that may join the next token
    nothing: list[int] = []  # tokens without characters that no character follows
    for number, (start, end) in enumerate(spans):
        if waiting and spans[waiting[-1]][0] != start:
            nothing += waiting
            waiting = []
        if start == end:
            waiting.append(number)
            continue
        if word and not _continues(text, _span_of(spans, word), start):
            words.append(Word(*_span_of(spans, word), tuple(word)))
            word = []
        word += [*waiting, number]
        waiting = []
    if word:
        words.append(Word(*_span_of(spans, word), tuple(word)))
    nothing += waiting
    if nothing:
        end = words[-1].end if words else spans[nothing[0]][0]
        words.append(Word(end, end, tuple(nothing)))
    return words


def words_of(text: str, tokens: Sequence[TokenInfluence]) -> tuple[TokenInfluence, ...]:
    """Add up the influences of tokens that belong to one word.

    Args:
        text: text that the tokens stand for.
        tokens: tokens in order and without overlap, see `group_into_words`.

    Returns:
        Words from `group_into_words`, with their characters from the text. The influence of a word is the sum of
        its tokens' influences.
    """
    return tuple(
        TokenInfluence(
            text[word.start : word.end],
            word.start,
            word.end,
            math.fsum(tokens[number].influence for number in word.tokens),
        )
        for word in group_into_words(text, [(token.start, token.end) for token in tokens])
    )


def _span_of(spans: Sequence[tuple[int, int]], word: Sequence[int]) -> tuple[int, int]:
    return spans[word[0]][0], spans[word[-1]][1]


def _continues(text: str, word: tuple[int, int], next_start: int) -> bool:
    """Tell whether a token that begins at `next_start` continues the word with the span `word`."""
    start, end = word
    if next_start != end:
        return False
    return in_one_word(text, end) or (text[start:end] == " " and _is_of_word(text[end]))


def in_one_word(text: str, position: int) -> bool:
    """Tell whether the characters before and at `position`, which is within the text, belong to one word."""
    if _is_one_character(text, position):
        return True
    left, right = _base(text, position - 1), text[position]
    if _is_of_word(left) and _is_of_word(right):
        return not (_stands_alone(left) or _stands_alone(right))
    if right in _BETWEEN_LETTERS | _BETWEEN_DIGITS:
        return _is_inside(text, position)
    return left in _BETWEEN_LETTERS | _BETWEEN_DIGITS and _is_inside(text, position - 1)


def _is_one_character(text: str, position: int) -> bool:
    """Tell whether people see the characters before and at `position` as one character."""
    left, right = text[position - 1], text[position]
    if left.isspace():
        return (left, right) == ("\r", "\n")
    if right == _JOINER or left == _JOINER or unicodedata.category(right)[0] == "M":
        return True
    if "\U0001f3fb" <= right <= "\U0001f3ff" or "\U000e0020" <= right <= "\U000e007f":  # skins, flags
        return True
    if _is_indicator(left) and _is_indicator(right):  # two make a flag
        first = position - 1
        while first > 0 and _is_indicator(text[first - 1]):
            first -= 1
        return (position - first) % 2 == 1
    return False


def _is_inside(text: str, position: int) -> bool:
    """Tell whether the apostrophe, hyphen, point or comma at `position` is inside a word."""
    if not 0 < position < len(text) - 1:
        return False
    before, mark, after = _base(text, position - 1), text[position], text[position + 1]
    if before.isdigit() and after.isdigit() and mark in _BETWEEN_DIGITS:
        return True
    beside = _stands_alone(before) or _stands_alone(after)
    return mark in _BETWEEN_LETTERS and _is_of_word(before) and _is_of_word(after) and not beside


def _base(text: str, position: int) -> str:
    """Return the character at `position`; for an accent or other mark, the character that it belongs to."""
    while position > 0 and unicodedata.category(text[position])[0] == "M":
        position -= 1
    return text[position]


def _is_of_word(character: str) -> bool:
    """Tell whether this is a letter, a digit, or a mark that may be part of a word."""
    return character.isalnum() or unicodedata.category(character) in ("Mn", "Mc", "Pc")


def _stands_alone(character: str) -> bool:
    """Tell whether a character belongs to a script that puts no blanks between words."""
    if character < "\u0e00":
        return False
    return unicodedata.name(character, "").split(" ", 1)[0] in _WITHOUT_BLANKS


def _is_indicator(character: str) -> bool:
    """Tell whether this is a regional indicator, two of which make a flag."""
    return "\U0001f1e6" <= character <= "\U0001f1ff"
