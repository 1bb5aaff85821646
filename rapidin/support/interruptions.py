"""Interruptions (Ctrl-C, SIGINT) that must not come between two steps, and terminations that act like them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptions_wait() -> Iterator[None]:
    """Make an interruption wait until the end of the block; processes started in it begin with it blocked.

    Blocking the signal is not enough, because the system then gives it to a thread that does not block it, for
    instance one of torch's, and Python interrupts the main thread anyway.

    Raises:
        KeyboardInterrupt: an interruption came; it is raised at the end, unless the process's handler does
            something else.
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


@contextmanager
def termination_interrupts() -> Iterator[list[int]]:
    """Make SIGTERM, which systemd, SLURM and Docker send, act like SIGINT, so that what was computed is stored.

    A shell without job control starts a command with ``&`` so that it ignores SIGINT. Such a command still ignores
    Ctrl-C, but a SIGTERM interrupts it.

    Yields:
        A list that is not empty once a SIGTERM came.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def interrupt(number: int, _: object) -> None:
        received.append(number)
        signal.raise_signal(signal.SIGINT)

    def only_if_terminated(number: int, frame: FrameType | None) -> None:
        if received:
            signal.default_int_handler(number, frame)

    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGINT, only_if_terminated)
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
