"""Values of tokens added up to words, as people see them.

A word is letters and digits, with apostrophes and hyphens between letters (don't, well-known) and points and
commas between digits (3.14). Everything else stands alone: punctuation, line ends, and the characters of scripts
that put no blanks between words, whose words are their tokens. What one sees as a single character is never
divided: accents and other marks, flags, emoji of several parts. Tokens are never divided either: one that holds
several words is one entry, and so is a word with the blank in front of it, which most tokenizers take into the
word's token; a token that is only this blank belongs to the word, too.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

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
"""How the names of characters begin in scripts that put no blanks between words."""
_JOINER = "\u200d"


def words_of(text: str, tokens: Sequence[TokenInfluence]) -> tuple[TokenInfluence, ...]:
    """Add up tokens that belong to one word.

    Args:
        text: in which they stand.
        tokens: in order, without overlap; parts of the text may be left out. One with an empty span belongs to
            the token that begins there, like a byte of the character behind it.

    Returns:
        Words in order, with their characters as they stand in the text. Last, where there are such tokens, one
        entry with empty text, behind the last word, for tokens that no character follows, such as the end of a
        sequence. The values add up to those of the tokens.
    """
    words: list[TokenInfluence] = []
    word: list[TokenInfluence] = []  # not at its end yet
    waiting: list[TokenInfluence] = []  # without characters
    nothing: list[TokenInfluence] = []
    for token in tokens:
        if waiting and waiting[-1].start != token.start:
            nothing += waiting
            waiting = []
        if token.start == token.end:
            waiting.append(token)
            continue
        if word and not _continues(text, word, token):
            words.append(_sum(text, word))
            word = []
        word += [*waiting, token]
        waiting = []
    if word:
        words.append(_sum(text, word))
    nothing += waiting
    if nothing:
        end = words[-1].end if words else nothing[0].start
        words.append(TokenInfluence("", end, end, math.fsum(token.influence for token in nothing)))
    return tuple(words)


def _continues(text: str, word: Sequence[TokenInfluence], token: TokenInfluence) -> bool:
    start, end = word[0].start, word[-1].end
    if token.start != end:
        return False
    return in_one_word(text, end) or (text[start:end] == " " and _is_of_word(text[end]))


def in_one_word(text: str, position: int) -> bool:
    """Whether the characters before and at `position`, which is within the text, belong to one word."""
    if _is_one_character(text, position):
        return True
    left, right = _base(text, position - 1), text[position]
    if _is_of_word(left) and _is_of_word(right):
        return not (_stands_alone(left) or _stands_alone(right))
    if right in _BETWEEN_LETTERS | _BETWEEN_DIGITS:
        return _is_inside(text, position)
    return left in _BETWEEN_LETTERS | _BETWEEN_DIGITS and _is_inside(text, position - 1)


def _is_one_character(text: str, position: int) -> bool:
    """Whether what is before and at `position` is seen as a single character."""
    left, right = text[position - 1], text[position]
    if left.isspace():
        return (left, right) == ("\r", "\n")
    if right == _JOINER or left == _JOINER or unicodedata.category(right)[0] == "M":
        return True
    if "\U0001f3fb" <= right <= "\U0001f3ff" or "\U000e0020" <= right <= "\U000e007f":  # of skins, of flags
        return True
    if _is_indicator(left) and _is_indicator(right):  # two make a flag
        first = position - 1
        while first > 0 and _is_indicator(text[first - 1]):
            first -= 1
        return (position - first) % 2 == 1
    return False


def _is_inside(text: str, position: int) -> bool:
    """Whether the apostrophe, hyphen, point or comma at `position` is inside a word."""
    if not 0 < position < len(text) - 1:
        return False
    before, mark, after = _base(text, position - 1), text[position], text[position + 1]
    if before.isdigit() and after.isdigit() and mark in _BETWEEN_DIGITS:
        return True
    beside = _stands_alone(before) or _stands_alone(after)
    return mark in _BETWEEN_LETTERS and _is_of_word(before) and _is_of_word(after) and not beside


def _base(text: str, position: int) -> str:
    """The character at `position`, or the one that it is an accent or other mark of."""
    while position > 0 and unicodedata.category(text[position])[0] == "M":
        position -= 1
    return text[position]


def _is_of_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character) in ("Mn", "Mc", "Pc")


def _stands_alone(character: str) -> bool:
    """Whether it is of a script that puts no blanks between words."""
    if character < "\u0e00":
        return False
    return unicodedata.name(character, "").split(" ", 1)[0] in _WITHOUT_BLANKS


def _is_indicator(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _sum(text: str, tokens: Sequence[TokenInfluence]) -> TokenInfluence:
    start, end = tokens[0].start, tokens[-1].end
    return TokenInfluence(text[start:end], start, end, math.fsum(token.influence for token in tokens))
