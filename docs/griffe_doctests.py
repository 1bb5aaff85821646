"""A Griffe extension: doctest lines of a docstring (``>>>``) become a block of code on the reference page."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Puts a fence around every paragraph that begins with ``>>>``."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:  # noqa: ARG002
        """Change the object's docstring once it is read."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"(?m)^>>> (?:.+\n?)+", lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", obj.docstring.value
            )
