"""A latch that waits for the searches under way when a searcher is closed, and refuses later ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rapidin.errors import ClosedError


class ClosingLatch:
    """Counts the calls that are inside, from several threads, until it is closed.

    Args:
        what: name of what is closed, with its article, for messages.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._changed = threading.Condition()
        self._inside: list[int] = []  # identifiers of threads, each as often as it is inside
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nobody is let in any more."""
        return self._closed

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Count the caller as inside as long as the ``with`` lasts.

        Raises:
            ClosedError: the latch was closed.
        """
        thread = threading.get_ident()
        with self._changed:
            if self._closed:
                raise ClosedError(f"{self._what} was closed; open a new one")
            self._inside.append(thread)
        try:
            yield
        finally:
            with self._changed:
                self._inside.remove(thread)
                self._changed.notify_all()

    def close(self) -> bool:
        """Let nobody in any more, and wait until all are out.

        Returns:
            whether this call was the first one, which must clean up.

        Raises:
            ClosedError: the caller itself is inside, so it would wait for ever; nothing is closed.
        """
        with self._changed:
            if threading.get_ident() in self._inside:
                raise ClosedError(f"{self._what} cannot be closed by what it calls; close it afterwards")
            first, self._closed = not self._closed, True
            self._changed.wait_for(lambda: not self._inside)
            return first
