"""One worker as its parent sees it: the process, the pipe to it, and the blocks that it has at hand."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection

from rapidin.errors import ComputationError
from rapidin.ingest.blocks import Block
from rapidin.ingest.compute.messages import Channel, Load, Tokens, Work
from rapidin.support import FreshInterpreter


class WorkerProcess:
    """A process that loads a model and then waits for blocks; see `rapidin.ingest.compute.worker`.

    Args:
        number: for messages, from 1.
        load: what it loads, and where.

    Raises:
        ComputationError: the system starts no further process.

    Attributes:
        name: for messages.
        load: as given.
        at_hand: blocks that it was given and has not answered, the one that it computes first.
        last_word: why it said that it ends, if it did.
    """

    def __init__(self, number: int, load: Load) -> None:
        self.load = load
        self.at_hand: deque[Block] = deque()
        self.last_word: str | None = None
        try:
            self._process = FreshInterpreter("rapidin.ingest.compute.worker:main", threads=load.threads)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ComputationError(
                f"no process can be started for a worker on {load.device}: {reason}; give fewer --workers, or end "
                "other programs"
            ) from error
        self._channel = Channel(self._process.connection)
        self.name = f"worker {number} on {load.device} (process {self._process.pid})"
        self.send(load)

    @property
    def connection(self) -> Connection:
        """For `multiprocessing.connection.wait`."""
        return self._channel.connection

    def send(self, message: object) -> None:
        """Send a message; one to a worker that has died is lost, for `receive` tells of that."""
        with suppress(OSError):
            self._channel.send(message)

    def receive(self) -> object:
        """Wait for its next message.

        Raises:
            EOFError, OSError: it has ended.
        """
        return self._channel.receive()

    def give(self, block: Block) -> None:
        """Let it compute a block after those that it has at hand."""
        self.at_hand.append(block)
        samples = tuple(Tokens(encoded.ids, encoded.targets) for _, encoded in block.samples)
        self.send(Work(block.number, samples))

    def take_back(self, number: int) -> Block:
        """Take the block that it has answered from what it has at hand."""
        block = self.at_hand.popleft()
        if block.number != number:
            raise RuntimeError(f"{self.name} answers block {number} before block {block.number}")
        return block

    def how_it_ended(self) -> str:
        """Say how the process ended, after its pipe has closed."""
        how = self._process.how_it_ended()
        return how if self.last_word is None else f"gave up: {self.last_word}"

    def hang_up(self) -> None:
        """Close the pipe, upon which the process ends by itself."""
        self._process.hang_up()

    def end(self, deadline: float) -> None:
        """Wait for the process's end until a deadline of `time.monotonic`, then kill it."""
        self._process.end(deadline)
