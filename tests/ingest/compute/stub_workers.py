"""Workers without a model: the work that they do, and threads that do it in the place of processes."""

import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import cast

import numpy as np

from rapidin.attribution import RapidGradBatch
from rapidin.errors import ComputationError, ModelError
from rapidin.ingest.compute.local_workers import Channel, LocalWorkers, run_worker
from rapidin.ingest.compute.messages import (
    Begin,
    Computed,
    Failed,
    FromWorker,
    Load,
    Loaded,
    Ready,
    ToWorker,
    Work,
)
from rapidin.ingest.compute.transport import Worker
from rapidin.ingest.compute.worker import Tell, failure

DIMENSION = 64
Behaviour = Callable[[int, int], object]
"""Takes worker and block number. Returns what is said before the result, or raises `Died` to end the worker."""

KILLS, FAILS, BREAKS, DEVICE_FAILS = 1001, 1002, 1003, 1004
"""Token ids at which `stub` is killed, fails with an error of rapidin, with another one, or with its device."""


class Died(Exception):
    """Ends a worker without a last word."""


def result(work: Work) -> Computed:
    """A stub's result: vectors that tell the block's number and the sum of each sample's token ids."""
    vectors = np.array([[work.number, sum(sample.ids)] for sample in work.samples], np.float32)
    return Computed(work.number, RapidGradBatch(vectors, {}))


def stub(inbox: SimpleQueue[object], tell: Tell) -> None:
    """Do a worker's work with token ids alone."""
    while True:
        message = inbox.get()
        if isinstance(message, Load):
            tell(Loaded((), "cpu"))
        elif isinstance(message, Begin):
            tell(Ready())
        elif isinstance(message, Work):
            first = message.samples[0].ids[0]
            if first == KILLS:
                os.kill(os.getpid(), signal.SIGKILL)
            if first == FAILS:
                raise ModelError("no such layer")
            if first == BREAKS:
                raise KeyError("broken")
            if first == DEVICE_FAILS:
                raise ComputationError("the device failed")
            tell(result(message))


def run_stub(connection: Connection) -> None:
    """Run a stub as a process."""
    run_worker(connection, stub)


def local_stubs() -> LocalWorkers:
    """A transport to stubs that are processes."""
    return LocalWorkers("tests.ingest.compute.stub_workers:run_stub")


class ThreadWorkers:
    """A transport to workers that are threads, and die only when they are told to.

    On a pretended GPU a worker begins a block before it answers the one before it, if it comes soon enough; to
    the block `followed` the first worker waits for the next one.

    Args:
        behave: what a worker does with a block besides computing it.
        device_type: type of the pretended device.
        followed: number of the block to which the first worker waits for the next one.
        dies_at_the_start: whether workers die when they are to get ready.
    """

    def __init__(
        self,
        behave: Behaviour = lambda worker, block: None,
        device_type: str = "cpu",
        followed: int = -1,
        dies_at_the_start: bool = False,
    ) -> None:
        self.started: list[int] = []
        self._behave = behave
        self._device_type = device_type
        self._followed = followed
        self._dies_at_the_start = dies_at_the_start

    def start(self, number: int, load: Load) -> "ThreadWorker":
        ours, theirs = Pipe()
        threading.Thread(target=self._serve, args=(theirs, number), daemon=True).start()
        self.started.append(number)
        worker = ThreadWorker(f"worker {number}", ours)
        worker.send(load)
        return worker

    def ready(self, workers: Sequence[Worker]) -> Sequence[Worker]:
        return LocalWorkers().ready(workers)

    def _serve(self, connection: Connection, number: int) -> None:
        channel = Channel(connection)
        begun: deque[Computed] = deque()
        try:
            while True:
                message = channel.receive()
                if isinstance(message, Load):
                    channel.send(Loaded((), self._device_type))
                elif isinstance(message, Begin):
                    if self._dies_at_the_start:
                        raise Died
                    channel.send(Ready())
                elif isinstance(message, Work):
                    said = self._behave(number, message.number)
                    if said is not None:
                        channel.send(said)
                    if isinstance(said, Failed):
                        raise Died
                    vectors = np.full((len(message.samples), DIMENSION), message.number, np.float32)
                    begun.append(Computed(message.number, RapidGradBatch(vectors, {})))
                    while len(begun) > 1:
                        channel.send(begun.popleft())
                    patience = 30 if number == 1 and message.number == self._followed else 0.05
                    if self._device_type == "cpu" or not connection.poll(patience):
                        channel.send(begun.popleft())
        except (EOFError, OSError, Died):
            channel.close()


class StubThreads(ThreadWorkers):
    """A transport to threads that do the work of `stub`."""

    def _serve(self, connection: Connection, number: int) -> None:
        channel = Channel(connection)
        inbox: SimpleQueue[object] = SimpleQueue()

        def receive() -> None:
            try:
                while True:
                    inbox.put(channel.receive())
            except (EOFError, OSError):
                inbox.put(None)

        class Inbox:
            def get(self) -> object:
                message = inbox.get()
                killed = isinstance(message, Work) and message.samples[0].ids[0] == KILLS
                if message is None or killed:
                    raise Died
                return message

        threading.Thread(target=receive, daemon=True).start()
        try:
            stub(cast("SimpleQueue[object]", Inbox()), channel.send)
        except (OSError, Died):
            pass
        except Exception as error:  # noqa: BLE001 - it is told
            channel.send(failure(error))
        # Closing alone would not wake the thread that receives.
        with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as end:
            end.shutdown(socket.SHUT_RDWR)


class ThreadWorker:
    """A worker that is a thread; see `Worker`."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name = name
        self.connection = connection
        self._channel = Channel(connection)

    def send(self, message: ToWorker) -> None:
        try:
            self._channel.send(message)
        except OSError:
            return

    def receive(self) -> FromWorker:
        try:
            return cast(FromWorker, self._channel.receive())
        except OSError as error:
            raise EOFError from error

    def how_it_ended(self) -> str:
        return "was killed"

    def hang_up(self) -> None:
        self._channel.close()

    def end(self, deadline: float) -> None:
        self._channel.close()
