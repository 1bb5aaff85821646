"""What the parent and its workers say to each other, and the pipe between them.

Messages are pickled by `multiprocessing.connection`, between processes of one program and never to disk; the
vectors of a result follow their message as plain bytes.

Shape letters: b batch · K projection dimension.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from rapidin.attribution import RapidGradBatch
from rapidin.settings import GradientSettings, ModelSettings, ProjectionSettings, TracedParameter


@dataclass(frozen=True, slots=True)
class Load:
    """To a worker, first of all: load this model.

    Attributes:
        model: which.
        device: of this worker, as of ``--device``.
        trust_remote_code: whether the checkpoint's own Python code may run.
        threads: of torch.
        log_level: of rapidin's messages; the parent drops what is below its own.
    """

    model: ModelSettings
    device: str
    trust_remote_code: bool
    threads: int
    log_level: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """From a worker: the model is there.

    Attributes:
        parameters: its traced parameter tensors.
        device_type: ``cpu`` or ``cuda``.
    """

    parameters: tuple[TracedParameter, ...]
    device_type: str


@dataclass(frozen=True, slots=True)
class Begin:
    """To a worker: make an engine for a store with these settings."""

    parameters: tuple[TracedParameter, ...]
    gradient: GradientSettings
    projection: ProjectionSettings
    tokens_per_batch: int | None


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: the engine is made."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A sample as the engine needs it, see `rapidin.attribution.gradients.engine.TokenSample`."""

    ids: tuple[int, ...]
    targets: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """To a worker: compute this block."""

    number: int
    samples: tuple[Tokens, ...]


@dataclass(frozen=True, slots=True)
class Computed:
    """From a worker: the block's RapidGrads."""

    number: int
    batch: RapidGradBatch


@dataclass(frozen=True, slots=True)
class Failed:
    """From a worker, as its last word: it cannot go on.

    Attributes:
        kind: name of a class of `rapidin.errors`; None for an error that nobody expected.
        message: of the error.
    """

    kind: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Logged:
    """From a worker: a log record."""

    name: str
    level: int
    message: str


@dataclass(frozen=True, slots=True)
class _ComputedHeader:
    """Announces the bytes of vectors float32 [b, K]."""

    number: int
    shape: tuple[int, int]
    problems: dict[int, str]


class Channel:
    """One end of the pipe between parent and worker; one thread may receive while any others send.

    Attributes:
        connection: for `multiprocessing.connection.wait`.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._sending = threading.Lock()

    def send(self, message: object) -> None:
        """Send a message.

        Raises:
            OSError: nobody is at the other end.
        """
        with self._sending:
            if isinstance(message, Computed):
                vectors, problems = message.batch.vectors, message.batch.problems
                self.connection.send(_ComputedHeader(message.number, vectors.shape, problems))
                self.connection.send_bytes(np.ascontiguousarray(vectors).data.cast("B"))
            else:
                self.connection.send(message)

    def receive(self) -> object:
        """Wait for a message.

        Raises:
            EOFError, OSError: nobody is at the other end.
        """
        message = self.connection.recv()
        if isinstance(message, _ComputedHeader):
            vectors = np.frombuffer(self.connection.recv_bytes(), dtype=np.float32).reshape(message.shape)
            return Computed(message.number, RapidGradBatch(vectors, message.problems))
        return message

    def close(self) -> None:
        """Close this end."""
        self.connection.close()
