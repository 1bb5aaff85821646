"""Imports of large packages, which take most of the time of a quick command."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Keep Python from looking for garbage while large packages are imported; this saves a sixth of the time.

    What was imported stays until the end, so it is also kept out of later collections. An application that
    switched collection off, and calls a command as a function, finds it as it was.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
            gc.freeze()
