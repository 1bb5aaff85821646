"""The transport to workers that are processes of this machine, with both ends of the pipe between them.

Messages are pickled by `multiprocessing.connection`, which is safe between processes of one program, see
`rapidin.support.processes`. The vectors of a result follow their message as plain bytes.

Shape letters: b batch · K projection dimension.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import cast

import numpy as np

from rapidin.attribution import RapidGradBatch
from rapidin.errors import ComputationError
from rapidin.ingest.compute.messages import Computed, FromWorker, Load, ToWorker
from rapidin.ingest.compute.transport import Worker
from rapidin.ingest.compute.worker import Tell, failure, serve
from rapidin.support import FreshInterpreter

Serve = Callable[[SimpleQueue[object], Tell], None]
"""Function that does a worker's work, see `rapidin.ingest.compute.worker.serve`."""


class LocalWorkers:
    """Starts workers as processes of this machine; see `Transport`.

    Args:
        function: ``package.module:name`` of the function that a process runs with its end of the pipe.
    """

    def __init__(self, function: str = "rapidin.ingest.compute.local_workers:run_worker") -> None:
        self._function = function

    def start(self, number: int, load: Load) -> LocalWorker:
        """See `Transport.start`."""
        try:
            process = FreshInterpreter(self._function, threads=load.threads)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ComputationError(
                f"no process can be started for a worker on {load.device}: {reason}; give fewer --workers, or end "
                "other programs"
            ) from error
        worker = LocalWorker(f"worker {number} on {load.device} (process {process.pid})", process)
        worker.send(load)
        return worker

    def ready(self, workers: Sequence[Worker]) -> Sequence[Worker]:
        """See `Transport.ready`."""
        by_connection = {cast(LocalWorker, worker).connection: worker for worker in workers}
        return [by_connection[cast(Connection, connection)] for connection in wait(list(by_connection))]


class LocalWorker:
    """A worker that is a process of this machine; see `Worker`.

    Args:
        name: name of the worker in messages to the user.
        process: the process.

    Attributes:
        name: name of the worker in messages to the user.
        connection: this end of the pipe to the process.
    """

    def __init__(self, name: str, process: FreshInterpreter) -> None:
        self.name = name
        self.connection = process.connection
        self._process = process
        self._channel = Channel(process.connection)

    def send(self, message: ToWorker) -> None:
        """See `Worker.send`."""
        with suppress(OSError):
            self._channel.send(message)

    def receive(self) -> FromWorker:
        """See `Worker.receive`."""
        try:
            return cast(FromWorker, self._channel.receive())
        except OSError as error:
            raise EOFError from error

    def how_it_ended(self) -> str:
        """See `Worker.how_it_ended`."""
        return self._process.how_it_ended()

    def hang_up(self) -> None:
        """See `Worker.hang_up`."""
        self._process.hang_up()

    def end(self, deadline: float) -> None:
        """See `Worker.end`."""
        self._process.end(deadline)


@dataclass(frozen=True, slots=True)
class _ComputedHeader:
    """Announces that the bytes of a block's vectors follow, float32 [b, K].

    Attributes:
        number: number of the block.
        shape: shape of the vectors.
        problems: see `RapidGradBatch`.
    """

    number: int
    shape: tuple[int, int]
    problems: dict[int, str]


class Channel:
    """One end of the pipe between parent and worker; one thread may receive while other threads send.

    Args:
        connection: connection to the other end.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: object) -> None:
        """Send a message.

        Raises:
            OSError: the other end is closed.
        """
        with self._sending:
            if isinstance(message, Computed):
                vectors, problems = message.batch.vectors, message.batch.problems
                self._connection.send(_ComputedHeader(message.number, vectors.shape, problems))
                self._connection.send_bytes(np.ascontiguousarray(vectors).data.cast("B"))
            else:
                self._connection.send(message)

    def receive(self) -> object:
        """Wait for a message.

        Raises:
            EOFError, OSError: the other end is closed.
        """
        message = self._connection.recv()
        if isinstance(message, _ComputedHeader):
            vectors = np.frombuffer(self._connection.recv_bytes(), dtype=np.float32).reshape(message.shape)
            return Computed(message.number, RapidGradBatch(vectors, message.problems))
        return message

    def close(self) -> None:
        """Close this end."""
        self._connection.close()


def run_worker(connection: Connection, serve: Serve = serve) -> None:
    """Run a worker for the parent at the other end of the pipe, and then end this process.

    Args:
        connection: this process's end of the pipe.
        serve: function that does the worker's work.
    """
    channel = Channel(connection)
    inbox: SimpleQueue[object] = SimpleQueue()

    def tell(message: object) -> None:
        # If the parent has gone, the process ends here. An error at this place must come from the pipe, whereas a
        # BrokenPipeError elsewhere may come from a model's own code.
        try:
            channel.send(message)
        except OSError:
            os._exit(0)

    threading.Thread(target=receive_all, args=(channel, inbox, tell), daemon=True).start()
    try:
        serve(inbox, tell)
    except Exception as error:
        logging.getLogger(__name__).debug("the worker failed", exc_info=True)
        tell(failure(error))
    os._exit(1)


def receive_all(channel: Channel, inbox: SimpleQueue[object], tell: Tell) -> None:
    """Take messages out of the pipe at once, so that the parent never waits until one is taken.

    If the pipe closes, the parent has gone or does not need this worker any more, so the process ends.

    Args:
        channel: this process's end of the pipe.
        inbox: queue that messages are put into.
        tell: function that sends an answer.
    """
    while True:
        try:
            inbox.put(channel.receive())
        except (EOFError, OSError):
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - it is told to the parent
            # This thread ends now, and without it the process would wait for messages for ever.
            try:
                tell(failure(error))
            finally:
                os._exit(1)
