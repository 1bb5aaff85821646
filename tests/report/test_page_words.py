"""Words, units of UTF-16 and prompts' own parts."""

import pytest
from hypothesis import given, strategies as some

from rapidin.report.page_words import group_words
from rapidin.report.prompts import own_parts
from rapidin.report.units import Units


@pytest.mark.parametrize(
    ("text", "ends", "expected"),
    [
        ("Mars is red", (4, 7, 9, 11, 11), ["Mars", "is", "red", ""]),
        ("Mars is", (4, 5, 7), ["Mars", " ", "is"]),
        ("co-operate!", (2, 3, 10, 11), ["co-operate!"]),
        ("a\n\nb", (1, 2, 3, 4), ["a", "\n", "\n", "b"]),
        ("火星は赤い", (1, 2, 3, 5), ["火", "星", "は", "赤い"]),
        ("", (), []),
    ],
)
def test_tokens_are_grouped_into_words(text: str, ends: tuple[int, ...], expected: list[str]) -> None:
    places = list(zip((0, *ends), ends, strict=False))
    words = group_words(text, places)
    assert [text[word.start : word.end] for word in words] == expected
    assert [number for word in words for number in word.tokens] == list(range(len(places)))


def test_bytes_of_one_character_are_one_word() -> None:
    words = group_words("a 🦀", [(0, 1), (1, 3), (2, 3), (2, 3)])
    assert [(word.start, word.end, word.tokens) for word in words] == [(0, 1, [0]), (2, 3, [1, 2, 3])]


def test_what_lies_between_targets_parts_words() -> None:
    words = group_words("ab-cd", [(0, 2), (3, 5)])
    assert len(words) == 2


@given(some.text())
def test_units_are_those_of_utf_16(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    units = Units(text)
    for offset in range(len(text) + 1):
        assert units(offset) == len(text[:offset].encode("utf-16-le")) // 2
    assert units.span(-3, len(text) + 9) == [0, units(len(text))]


def test_what_a_template_puts_around_prompts_is_not_their_own() -> None:
    texts = [f"Below is a task.\n\n### Instruction:\n{ask}\n\n### Response: " for ask in ("One", "Two\nlines")]
    parts = own_parts([*texts, *texts, "Three", "Three", ""])
    assert [prompt[slice(*parts[prompt])] for prompt in texts] == ["One", "Two\nlines"]
    assert parts["Three"] == (0, 5)
    assert parts[""] == (0, 0)


def test_a_prompt_that_begins_another_keeps_something() -> None:
    parts = own_parts(["Hello\n", "Hello\nWorld\n"])
    assert parts["Hello\n"] == (0, 6)
    assert parts["Hello\nWorld\n"] == (6, 11)
