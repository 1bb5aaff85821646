"""What the scheduler knows of workers: a transport starts them, and messages go to and fro.

A transport is one way to run workers: processes of this machine (`local_workers`), threads in a test, other
machines. It knows nothing of blocks, their order or their repetition. Every transport has to pass the tests of
``tests/ingest/compute/test_transports.py``.

A worker is sent `Load` first and answers `Loaded`, then `Begin` and answers `Ready`, then any number of `Work`,
each of which it answers with `Computed`, in their order. Between answers it may say `Logged`, and as its last word
`Failed`.
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
        """Say how the worker ended, after `receive` has told of it: ``ended with exit code 3``, for example."""

    def hang_up(self) -> None:
        """Let the worker know that it is not needed any more, so that it ends when its present work is done."""

    def end(self, deadline: float) -> None:
        """Wait for the worker's end until a deadline of `time.monotonic`, then kill it; may be called twice."""


class Transport(Protocol):
    """Starts workers and waits for what they say."""

    def start(self, number: int, load: Load) -> Worker:
        """Start a worker, whose first message is `load`.

        Args:
            number: number of the worker, counted from 1, for its name.
            load: model that the worker loads, and the device.

        Raises:
            ComputationError: no further worker can be started.
        """

    def ready(self, workers: Sequence[Worker]) -> Sequence[Worker]:
        """Wait until at least one of `workers`, all started by this transport, has a message or has ended.

        Returns:
            The workers whose `receive` will not wait.
        """
