"""Interruptions that wait for the end of a block."""

import signal
import threading
from collections.abc import Callable

import pytest

from rapidin.support import interruptions_wait


def interrupt_here() -> None:
    """To this very thread: where it blocks the signal, the signal waits until it no longer does."""
    signal.raise_signal(signal.SIGINT)


def interrupt_elsewhere() -> None:
    """To a thread that does not block the signal, as the kernel may choose for one sent to the process.

    `os.kill` would leave open when the signal arrives: perhaps only when the test has ended.
    """

    def receive() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # threads inherit what is blocked
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=receive)
    thread.start()
    thread.join()


INTERRUPT = pytest.mark.parametrize("interrupt", [interrupt_here, interrupt_elsewhere])


@INTERRUPT
def test_interruptions_wait_for_the_end_and_then_come_once(interrupt: Callable[[], None]) -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    steps = []
    try:
        with pytest.raises(KeyboardInterrupt), interruptions_wait():
            interrupt()
            steps.append("after the signal")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    assert steps == ["after the signal"]


def test_no_interruption_changes_nothing_and_errors_pass() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="mine"), interruptions_wait():
        raise ValueError("mine")
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_threads_may_start_workers() -> None:
    done = []

    def wait_in_a_thread() -> None:
        with interruptions_wait():
            done.append(True)

    thread = threading.Thread(target=wait_in_a_thread)
    thread.start()
    thread.join()
    assert done == [True]


@INTERRUPT
def test_an_interruption_is_not_lost_where_the_block_fails(interrupt: Callable[[], None]) -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as raised, interruptions_wait():
            interrupt()
            raise ValueError("mine")
    finally:
        signal.signal(signal.SIGINT, handler)
    assert isinstance(raised.value.__context__, ValueError)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
