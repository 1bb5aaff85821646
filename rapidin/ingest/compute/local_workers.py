"""One worker as its parent sees it: the process, the pipe to it, and the blocks that it has at hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from rapidin.errors import ComputationError
from rapidin.ingest.blocks import Block
from rapidin.ingest.compute.messages import Channel, Load, Tokens, Work
from rapidin.support import VARIABLES, interruptions_wait

_SECONDS_TO_DIE = 10.0

BOOT = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
sys.path[:] = connection.recv()
from rapidin.ingest.compute.worker import main
main(connection)
"""
"""Program of a worker; its argument is the number of the pipe's file descriptor, its first message sys.path. Not a
child of `multiprocessing`, which would run the user's script a second time."""


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
        self._channel, self._process = _started(load)
        self.name = f"worker {number} on {load.device} (process {self._process.pid})"
        self.send(sys.path)
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
        self.end(time.monotonic() + _SECONDS_TO_DIE)
        code = self._process.returncode
        if self.last_word is not None:
            return f"gave up: {self.last_word}"
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"was killed by {name}{', probably for lack of memory' if name == 'SIGKILL' else ''}"

    def hang_up(self) -> None:
        """Close the pipe, upon which the process ends by itself."""
        self._channel.close()

    def end(self, deadline: float) -> None:
        """Wait for the process's end until a deadline of `time.monotonic`, then kill it."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._channel.close()


def _started(load: Load) -> tuple[Channel, subprocess.Popen[bytes]]:
    ours, theirs = Pipe()
    process: subprocess.Popen[bytes] | None = None
    try:
        # An interruption of the terminal goes to all of its processes; it must not reach the new one before that
        # ignores it, nor this one before it knows of the new one.
        with interruptions_wait():
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOT, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a model's code prints is no result
                pass_fds=[theirs.fileno()],
                env=VARIABLES | os.environ | {"OMP_NUM_THREADS": str(load.threads)},
            )
    except BaseException as error:
        ours.close()
        if process is not None:
            process.kill()
            process.wait()
        if isinstance(error, OSError):
            reason = error.strerror or type(error).__name__
            raise ComputationError(
                f"no process can be started for a worker on {load.device}: {reason}; give fewer --workers, or end "
                "other programs"
            ) from error
        raise
    finally:
        theirs.close()
    return Channel(ours), process
