"""Words are what people see, and their values are those of their tokens."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from rapidin.records.hits import TokenInfluence
from rapidin.text import group_into_words, words_of


def tokens_of(*texts: str, start: int = 0) -> list[TokenInfluence]:
    made = []
    for number, text in enumerate(texts):
        made.append(TokenInfluence(text, start, start + len(text), float(1 << number)))
        start += len(text)
    return made


def words(*texts: str) -> list[str]:
    return [word.token for word in words_of("".join(texts), tokens_of(*texts))]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["The", " quick", "est", " fox", "."], ["The", " quickest", " fox", "."]),
        (["do", "n", "'", "t", " st", "op"], ["don't", " stop"]),
        (["don", "’", "t"], ["don’t"]),
        (["'", "quoted", "'", " ", "'", "x"], ["'", "quoted", "'", " ", "'", "x"]),
        (["well", "-", "known", " -", "a"], ["well-known", " -", "a"]),
        (["a", "-", "-", "b"], ["a", "-", "-", "b"]),
        (["3", ".", "14", ",", " 1", ",", "000"], ["3.14", ",", " 1,000"]),
        (["end", ".", "Next"], ["end", ".", "Next"]),
        (["1", "."], ["1", "."]),
        (["snake", "_", "case"], ["snake_case"]),
        ([" ", "a", "b", "  ", "c"], [" ab", "  ", "c"]),
        ([" ", " a"], [" ", " a"]),
        (["ab ", "cd"], ["ab ", "cd"]),
        (["a", "\n", "b", "\r", "\n"], ["a", "\n", "b", "\r\n"]),
        (["漢", "字", "です", "か"], ["漢", "字", "です", "か"]),
        (["漢字", "GPT", "4"], ["漢字", "GPT4"]),
        (["สวัส", "ดี"], ["สวัส", "ดี"]),
        (["한국", "어"], ["한국어"]),
        (["e", "\u0301", "a"], ["e\u0301a"]),
        (["か", "\u3099", "x"], ["か\u3099", "x"]),
        (["👍", "🏽", "👍"], ["👍🏽", "👍"]),
        (["👩", "\u200d", "🚀"], ["👩\u200d🚀"]),
        (["❤", "\ufe0f", "!"], ["❤\ufe0f", "!"]),
        (["🇩", "🇪", "🇫", "🇷"], ["🇩🇪", "🇫🇷"]),
        (["two words", "joined"], ["two wordsjoined"]),
        (["é", "tude", "s"], ["études"]),
        (["привет", "ствие", "!"], ["приветствие", "!"]),
        (["<", "|", "user", "|", ">"], ["<", "|", "user", "|", ">"]),
    ],
)
def test_words(texts, expected):
    assert words(*texts) == expected


def test_bytes_belong_to_their_character_and_the_end_to_nothing():
    text = "ab👍"
    tokens = [
        *tokens_of("a", "b"),
        TokenInfluence("", 2, 2, 10.0),
        TokenInfluence("", 2, 2, 20.0),
        TokenInfluence("👍", 2, 3, 30.0),
        TokenInfluence("", 3, 3, 5.0),
    ]
    assert words_of(text, tokens) == (
        TokenInfluence("ab", 0, 2, 3.0),
        TokenInfluence("👍", 2, 3, 60.0),
        TokenInfluence("", 3, 3, 5.0),
    )


def test_a_word_of_which_only_a_part_is_a_target():
    tokens = [*tokens_of("a", start=0), *tokens_of("c", "d", start=2), TokenInfluence("", 5, 5, 9.0)]
    assert [word.token for word in words_of("abcdef", tokens)] == ["a", "cd", ""]
    assert words_of("", []) == ()
    assert group_into_words("", []) == []
    assert words_of("ab", [TokenInfluence("", 2, 2, 1.0)]) == (TokenInfluence("", 2, 2, 1.0),)


def test_each_token_is_in_one_word():
    places = [(0, 1), (1, 1), (1, 4), (4, 5), (5, 5), (5, 5)]
    assert [(word.start, word.end, word.tokens) for word in group_into_words("a go!", places)] == [
        (0, 1, (0,)),
        (1, 4, (1, 2)),
        (4, 5, (3,)),
        (5, 5, (4, 5)),
    ]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    text=st.one_of(st.text(st.sampled_from("ab '-.1,漢👍🏽\u200d\u0301🇩\n"), max_size=20), st.text(max_size=20)),
    data=st.data(),
)
def test_values_and_characters_are_those_of_the_tokens(text, data):
    borders = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    values = st.floats(-1e6, 1e6)
    tokens = [TokenInfluence(text[start:end], start, end, data.draw(values)) for start, end in pairwise(borders)]
    found = words_of(text, tokens)
    assert math.isclose(
        math.fsum(word.influence for word in found),
        math.fsum(token.influence for token in tokens),
        abs_tol=1e-6,
    )
    assert "".join(word.token for word in found) == "".join(token.token for token in tokens)
    assert all(word.token == text[word.start : word.end] for word in found)
    assert all(word.token for word in found[:-1])
    assert all(one.end <= next.start for one, next in pairwise(found))
