"""Texts that are cut or joined for a message."""

from rapidin.support import both_ends, error_line, one_line, shortened


def test_a_long_text_ends_with_an_ellipsis() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "abc…"


def test_both_ends_of_a_long_text_are_kept() -> None:
    assert both_ends("abcd", 4) == "abcd"
    assert both_ends("abcdefgh", 4) == "ab … gh"


def test_white_space_becomes_single_spaces_before_the_text_is_cut() -> None:
    assert one_line(" a\n\tb  c ") == "a b c"
    assert one_line("a\n\n\nb c", 3) == "a b…"


def test_an_error_without_a_message_is_named_by_its_type() -> None:
    assert error_line(ValueError("two\nlines")) == "two lines"
    assert error_line(ValueError("x" * 300)) == "x" * 200 + "…"
    assert error_line(KeyError()) == "KeyError"
