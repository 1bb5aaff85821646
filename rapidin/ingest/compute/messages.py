"""The messages between the scheduler and its workers; `transport` tells their order.

Shape letters: t tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from rapidin.attribution import FisherDraw, RapidGradBatch
from rapidin.settings import GradientSettings, ModelSettings, ProjectionSettings, TracedParameter


@dataclass(frozen=True, slots=True)
class Load:
    """The first message to a worker, which tells it which model to load.

    Attributes:
        model: settings of the model.
        device: device of this worker, a value of ``--device``.
        trust_remote_code: whether the checkpoint's own Python code may run.
        threads: number of torch's threads.
        log_level: lowest level of rapidin's log records that the worker sends.
    """

    model: ModelSettings
    device: str
    trust_remote_code: bool
    threads: int
    log_level: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Tells the scheduler that a worker has its model.

    Attributes:
        parameters: the model's traced parameter tensors.
        device_type: ``cpu`` or ``cuda``.
    """

    parameters: tuple[TracedParameter, ...]
    device_type: str


@dataclass(frozen=True, slots=True)
class Begin:
    """Tells a worker to make an engine for a store with these settings.

    Attributes:
        parameters: the store's traced parameter tensors.
        gradient: settings of the gradients.
        projection: settings of the projection to one section of a RapidGrad.
        tokens_per_batch: number of padded tokens of a batch; None for a number that suits the device.
    """

    parameters: tuple[TracedParameter, ...]
    gradient: GradientSettings
    projection: ProjectionSettings
    tokens_per_batch: int | None


@dataclass(frozen=True, slots=True)
class Ready:
    """Tells the scheduler that a worker has made its engine."""


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A sample with what the engine needs, see `rapidin.attribution.NamedSample`.

    Attributes:
        id: id of the sample.
        ids: token ids [t].
        targets: whether each token is a target [t].
    """

    id: str
    ids: tuple[int, ...]
    targets: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """Gives a worker a block to compute.

    Attributes:
        number: number of the block.
        samples: samples of the block, the longest first.
        draw: draw whose probes are to be computed instead of RapidGrads.
    """

    number: int
    samples: tuple[TokenIds, ...]
    draw: FisherDraw | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """Gives the scheduler a block's RapidGrads.

    Attributes:
        number: number of the block.
        batch: RapidGrads of the block.
    """

    number: int
    batch: RapidGradBatch


@dataclass(frozen=True, slots=True)
class Failed:
    """The last message of a worker, which says why it cannot go on.

    Attributes:
        kind: name of the error's class in `rapidin.errors`; None for an unexpected error.
        message: message of the error.
    """

    kind: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Logged:
    """Gives the scheduler a log record of a worker.

    Attributes:
        name: name of the logger.
        level: level of the record.
        message: text of the record.
    """

    name: str
    level: int
    message: str


ToWorker: TypeAlias = Load | Begin | Work
FromWorker: TypeAlias = Loaded | Ready | Computed | Failed | Logged
