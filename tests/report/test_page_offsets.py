"""Units of UTF-16 and prompts' own parts."""

from hypothesis import given, strategies as some

from rapidin.report.own_prompts import own_parts
from rapidin.report.utf16_offsets import Utf16Offsets


@given(some.text())
def test_units_are_those_of_utf_16(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    units = Utf16Offsets(text)
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
