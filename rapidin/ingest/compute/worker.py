"""A worker: a process that loads the model once and computes block after block for its parent.

It is a fresh interpreter that `local_workers` starts. It knows token ids and RapidGrads; nothing of rows,
stores or other workers.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from queue import SimpleQueue

import torch

from rapidin.attribution import BatchRunner, RapidGradEngine, TokenBudget
from rapidin.errors import RapidinError
from rapidin.ingest.compute.messages import (
    Begin,
    Channel,
    Computed,
    Failed,
    Load,
    Loaded,
    Logged,
    Ready,
    Tokens,
    Work,
)
from rapidin.model import load_model


def main(connection: Connection) -> None:
    """Serve the parent at the other end of the pipe; the process ends with this call."""
    channel = Channel(connection)
    inbox: SimpleQueue[object] = SimpleQueue()
    threading.Thread(target=_receive, args=(channel, inbox), daemon=True).start()
    try:
        _serve(channel, inbox)
    except RapidinError as error:
        _tell(channel, Failed(type(error).__name__, str(error)))
    except Exception as error:
        logging.getLogger(__name__).debug("the worker failed", exc_info=True)
        _tell(channel, _unexpected(error))
    os._exit(1)


def _receive(channel: Channel, inbox: SimpleQueue[object]) -> None:
    """Take messages out of the pipe at once, so that the parent never waits with one.

    When the pipe closes the parent has gone, or is done with this worker: nothing is left to be done.
    """
    while True:
        try:
            inbox.put(channel.receive())
        except (EOFError, OSError):
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - it is told to the parent
            # Without this thread the process would wait for its next message for ever.
            try:
                _tell(channel, _unexpected(error))
            finally:
                os._exit(1)


def _unexpected(error: BaseException) -> Failed:
    return Failed(None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _serve(channel: Channel, inbox: SimpleQueue[object]) -> None:
    load = inbox.get()
    if not isinstance(load, Load):
        raise TypeError(f"the first message is {type(load).__name__}, not Load")
    _send_logs(channel, load.log_level)
    torch.set_num_threads(load.threads)
    _choose_gpu(load.device)
    loaded = load_model(load.model, load.device, load.trust_remote_code)
    device_type = next(loaded.model.parameters()).device.type
    _tell(channel, Loaded(loaded.parameters, device_type))
    begin = inbox.get()
    if not isinstance(begin, Begin):
        raise TypeError(f"the second message is {type(begin).__name__}, not Begin")
    engine = RapidGradEngine(loaded.model, begin.parameters, begin.projection)
    budget = TokenBudget.for_device(begin.tokens_per_batch, engine.device, begin.projection.dimension)
    _tell(channel, Ready())
    for number, batch in BatchRunner(engine, budget).blocks(_work(inbox)):
        _tell(channel, Computed(number, batch))


def _work(inbox: SimpleQueue[object]) -> Iterator[tuple[int, tuple[Tokens, ...]] | None]:
    """Give the parent's blocks as they come, and None where the next one is not here yet."""
    while True:
        if inbox.empty():
            yield None
        work = inbox.get()
        if not isinstance(work, Work):
            raise TypeError(f"a message is {type(work).__name__}, not Work")
        yield work.number, work.samples


def _choose_gpu(device: str) -> None:
    """Make this worker's first GPU the current one, or libraries would take memory of the first of all."""
    kind, _, numbers = device.partition(":")
    if kind == "cuda" and numbers:
        torch.cuda.set_device(int(numbers.split(",")[0]))


def _send_logs(channel: Channel, level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [_Sender(channel)]
    root.setLevel(logging.INFO)
    logging.getLogger("rapidin").setLevel(level)


class _Sender(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, with its traceback in the text."""
        try:
            message = self.format(record)
        except (TypeError, ValueError):  # a library's arguments do not fit its text
            message = str(record.msg)
        _tell(self._channel, Logged(record.name, record.levelno, message))


def _tell(channel: Channel, message: object) -> None:
    """Send a message; where there is no parent any more the process ends.

    It ends here, where the error can only be the pipe's: a model's own code may raise a BrokenPipeError, too.
    """
    try:
        channel.send(message)
    except OSError:
        os._exit(0)
