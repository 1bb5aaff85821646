"""The protocols of workers and of transports, which start workers and carry messages to and from them.

A transport is one way to run workers: as processes of this machine (`local_workers`), as threads in a test, or on
other machines. It knows nothing of blocks, of their order or of their repetition. Every transport must pass the
tests of ``tests/ingest/compute/test_transports.py``.

The first message to a worker is `Load`, which it answers with `Loaded`. The second is `Begin`, which it answers
with `Ready`. Any number of `Work` follow; it answers each with `Computed`, in their order. Between answers it may
send `Logged`, and `Failed` as its last message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rapidin.ingest.compute.messages import FromWorker, Load, ToWorker


class Worker(Protocol):
    """One worker, from its start to its end."""

    @property
    def name(self) -> str:
        """Name of the worker in messages to the user."""

    def send(self, message: ToWorker) -> None:
        """Send a message without waiting for the worker.

        A message to a worker that has ended is lost; `receive` tells that it has ended.
        """

    def receive(self) -> FromWorker:
        """Wait for the worker's next message and return it.

        Raises:
            EOFError: the worker has ended, and all that it said was received.
        """

    def how_it_ended(self) -> str:
        """Say how the worker ended, for example ``ended with exit code 3``; it must have ended."""

    def hang_up(self) -> None:
        """Tell the worker that it is not needed any more, so that it ends after its present work."""

    def end(self, deadline: float) -> None:
        """Wait for the worker's end until a time of `time.monotonic`, then kill it; a second call is harmless."""


class Transport(Protocol):
    """Starts workers and waits for their messages."""

    def start(self, number: int, load: Load) -> Worker:
        """Start a worker, whose first message is `load`.

        Args:
            number: number of the worker, counted from 1, which its name contains.
            load: model that the worker loads, and the device.

        Raises:
            ComputationError: no further worker can be started.
        """

    def ready(self, workers: Sequence[Worker]) -> Sequence[Worker]:
        """Wait until at least one of some workers has a message or has ended.

        Args:
            workers: workers that this transport has started.

        Returns:
            The workers whose `receive` will not wait.
        """
