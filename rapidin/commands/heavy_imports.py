"""Imports of large packages, which take most of the time of a quick command."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Switch garbage collection off while large packages are imported, which saves a sixth of the time.

    Imported objects stay until the end, so they are also kept out of later collections. If an application has
    switched collection off and calls a command as a function, collection stays off.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
            gc.freeze()
