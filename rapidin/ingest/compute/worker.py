"""The work of a worker: it loads the model once and computes block after block.

A worker knows token ids and RapidGrads. It knows nothing of rows, stores or other workers, and it does not know
how messages reach it, because that is the transport's part.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TypeAlias

import torch

from rapidin.attribution import BatchRunner, FisherDraw, RapidGradEngine, SectionRunner, TokenBudget
from rapidin.errors import RapidinError
from rapidin.ingest.compute.messages import Begin, Computed, Failed, Load, Loaded, Logged, Ready, TokenIds, Work
from rapidin.model import load_model
from rapidin.support import one_line

_LONGEST_REASON = 300

Tell: TypeAlias = Callable[[object], None]
"""Function that sends a message to the scheduler."""


def serve(inbox: SimpleQueue[object], tell: Tell) -> None:
    """Load a model and compute blocks as messages ask for it; this never returns.

    Args:
        inbox: queue of the messages that arrive.
        tell: function that sends the answers.

    Raises:
        RapidinError: the model cannot be loaded or used.
        ComputationError: the device failed.
    """
    load = inbox.get()
    if not isinstance(load, Load):
        raise TypeError(f"the first message is {type(load).__name__}, not Load")
    _send_logs(tell, load.log_level)
    torch.set_num_threads(load.threads)
    _choose_gpu(load.device)
    loaded = load_model(load.model, load.device, load.trust_remote_code)
    device_type = next(loaded.model.parameters()).device.type
    tell(Loaded(loaded.parameters, device_type))
    begin = inbox.get()
    if not isinstance(begin, Begin):
        raise TypeError(f"the second message is {type(begin).__name__}, not Begin")
    engine = RapidGradEngine(loaded.model, begin.parameters, begin.projection, begin.gradient)
    budget = TokenBudget.for_device(begin.tokens_per_batch, engine.device, begin.projection.dimension)
    tell(Ready())
    for number, batch in SectionRunner(BatchRunner(engine, budget), loaded.states).blocks(_work(inbox)):
        tell(Computed(number, batch))


def failure(error: BaseException) -> Failed:
    """Make a worker's last message, about the error that ends it."""
    if isinstance(error, RapidinError):
        return Failed(type(error).__name__, str(error))
    return Failed(None, f"{type(error).__name__}: {one_line(str(error), _LONGEST_REASON)}")


def _work(inbox: SimpleQueue[object]) -> Iterator[tuple[int, tuple[TokenIds, ...], FisherDraw | None] | None]:
    """Yield blocks as they arrive, and None whenever the next one has not arrived yet."""
    while True:
        if inbox.empty():
            yield None
        work = inbox.get()
        if not isinstance(work, Work):
            raise TypeError(f"a message is {type(work).__name__}, not Work")
        yield work.number, work.samples, work.draw


def _choose_gpu(device: str) -> None:
    """Make this worker's first GPU the current one; otherwise libraries take memory of the first GPU of all."""
    kind, _, numbers = device.partition(":")
    if kind == "cuda" and numbers:
        torch.cuda.set_device(int(numbers.split(",")[0]))


def _send_logs(tell: Tell, level: int) -> None:
    """Send this process's log records to the scheduler: rapidin's from `level` on, others from INFO on."""
    root = logging.getLogger()
    root.handlers[:] = [_Sender(tell)]
    root.setLevel(logging.INFO)
    logging.getLogger("rapidin").setLevel(level)


class _Sender(logging.Handler):
    """Sends log records to the scheduler."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, with its traceback in the text."""
        try:
            message = self.format(record)
        except (TypeError, ValueError):  # a library's arguments do not fit its text
            message = str(record.msg)
        self._tell(Logged(record.name, record.levelno, message))
