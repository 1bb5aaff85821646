"""Texts that have to fit into one line or into a message."""

from __future__ import annotations


def shortened(text: str, length: int) -> str:
    """Return the text, or its first `length` characters and an ellipsis if it is longer."""
    return text if len(text) <= length else f"{text[:length]}…"


def both_ends(text: str, length: int) -> str:
    """Return the text, or its beginning and its end, half of `length` characters each, if it is longer."""
    return text if len(text) <= length else f"{text[: length // 2]} … {text[-length // 2 :]}"


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
