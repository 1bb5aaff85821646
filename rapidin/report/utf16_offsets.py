"""Offsets as browsers count them, in units of UTF-16; a character beyond U+FFFF takes two units."""

from __future__ import annotations

from itertools import accumulate


class Utf16Offsets:
    """Turns offsets of a text's characters into offsets of its UTF-16 units.

    An offset outside the text counts as its nearest end.
    """

    def __init__(self, text: str) -> None:
        self._length = len(text)
        self._wide = not text.isascii() and max(text) > "\uffff"
        self._starts = (
            list(accumulate((1 + (character > "\uffff") for character in text), initial=0)) if self._wide else []
        )

    def __call__(self, offset: int) -> int:
        """Return the unit at which a character begins."""
        offset = min(max(offset, 0), self._length)
        return self._starts[offset] if self._wide else offset

    def span(self, start: int, end: int) -> list[int]:
        """Return both ends of a part of the text, in units; a part that ends before it begins is empty."""
        return [self(start), self(max(start, end))]
