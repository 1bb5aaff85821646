"""Texts that have to fit into one line or into a message."""

from __future__ import annotations

import re


def shortened(text: str, length: int) -> str:
    """Return the text, or its first `length` characters and an ellipsis if it is longer."""
    return text if len(text) <= length else f"{text[:length]}…"


def both_ends(text: str, length: int) -> str:
    """Return the text, or its beginning and its end, half of `length` characters each, if it is longer."""
    return text if len(text) <= length else f"{text[: length // 2]} … {text[-length // 2 :]}"


_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys: those of control, but for tabs and line ends, and those of direction."""
_ESCAPED = re.compile(r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that JSON may hold as they are, and that a terminal obeys."""


def printable(text: str) -> str:
    """Replace each character that a terminal would obey instead of showing it."""
    return _OBEYED.sub("\N{REPLACEMENT CHARACTER}", text)


def printable_json(text: str) -> str:
    """Escape each character in the text of a JSON document that a terminal would obey; it means the same."""
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str, length: int | None = None) -> str:
    """Return the text with each run of white space, line breaks included, turned into one space.

    Args:
        text: any text.
        length: number of characters after which the line is cut, see `shortened`; None for no limit.
    """
    line = " ".join(text.split())
    return line if length is None else shortened(line, length)


def error_line(error: BaseException, length: int = 200) -> str:
    """Return an error's message as one line of at most `length` characters, or its type if it has no message."""
    return one_line(str(error), length) or type(error).__name__


def named_line(error: BaseException) -> str:
    """Shorten an error to its class and the beginning of its message."""
    text = one_line(str(error), 300)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
