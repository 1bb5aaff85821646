"""Interruptions (Ctrl-C, SIGINT) that must not come between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptions_wait() -> Iterator[None]:
    """Let an interruption wait until the end of the block; processes started in it begin with it blocked.

    Blocking the signal is not enough for the first: it goes to any thread that does not block it, torch's for
    instance, and Python then interrupts the main thread all the same.

    Raises:
        KeyboardInterrupt: at the end, or whatever else the process's handler makes of an interruption.
    """
    received: list[int] = []
    handler = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        if handler is not None:
            signal.signal(signal.SIGINT, lambda number, _: received.append(number))
        yield
    finally:
        try:
            if handler is not None:
                signal.signal(signal.SIGINT, handler)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if received:
            signal.raise_signal(signal.SIGINT)
