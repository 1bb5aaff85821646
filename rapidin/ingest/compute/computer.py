"""Who computes an ingest's blocks: this process, or several workers; both give the same."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator
from typing import Protocol, Self

import torch

from rapidin.attribution import BatchRunner, RapidGradBatch, RapidGradEngine, TokenBudget
from rapidin.errors import ComputationError
from rapidin.ingest.blocks import Block, BlocksAhead
from rapidin.ingest.compute.scheduler import WorkerPool
from rapidin.ingest.planning import Plan
from rapidin.model import load_model, local_directory, worker_devices
from rapidin.settings import ModelSettings, StoreSettings, TracedParameter
from rapidin.text import EncodedSample

logger = logging.getLogger(__name__)


class Computer(Protocol):
    """Computes blocks with a model that it has loaded; use it in a ``with``.

    Attributes:
        parameters: the model's traced parameter tensors.
        processes: how many compute.
    """

    parameters: tuple[TracedParameter, ...]
    processes: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def start(self, settings: StoreSettings, tokens_per_batch: int | None) -> TokenBudget:
        """Make ready for a store's blocks, and say how much one of them may hold.

        Raises:
            ModelError, SettingError: the model or K does not fit the settings, see `RapidGradEngine`.
        """

    def compute(self, blocks: BlocksAhead) -> Iterator[tuple[Block, RapidGradBatch]]:
        """Compute blocks, in their order.

        Raises:
            ComputationError: a worker or device failed beyond repair.
            RapidinError: whatever ended the blocks too early, after the others.
        """

    def stop(self) -> list[tuple[Block, RapidGradBatch]]:
        """End the work at once, and return what was computed but not yet handed on by `compute`."""


class InProcess:
    """Computes in this process; see `Computer`.

    Raises:
        ModelError, DependencyError, SettingError: the model cannot be loaded, see `load_model`.
    """

    processes = 1

    def __init__(self, model: ModelSettings, device: str, trust_remote_code: bool) -> None:
        """Load the model; `device` is as of ``--device``."""
        self._loaded = load_model(model, device, trust_remote_code)
        self._engine: RapidGradEngine | None = None
        self._batches: BatchRunner | None = None
        self.parameters = self._loaded.parameters

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._engine is not None:
            self._engine.close()

    def start(self, settings: StoreSettings, tokens_per_batch: int | None) -> TokenBudget:
        """See `Computer.start`."""
        self._engine = RapidGradEngine(self._loaded.model, settings.traced, settings.projection)
        budget = TokenBudget.for_device(tokens_per_batch, self._engine.device, settings.projection.dimension)
        self._batches = BatchRunner(self._engine, budget)
        return budget

    def compute(self, blocks: BlocksAhead) -> Iterator[tuple[Block, RapidGradBatch]]:
        """See `Computer.compute`."""
        if self._batches is None:
            raise RuntimeError("start comes before compute")
        under_way: deque[Block] = deque()

        def samples_of(block: Block) -> tuple[Block, list[EncodedSample]]:
            under_way.append(block)
            return block, [encoded for _, encoded in block.samples]

        try:
            for block, batch in self._batches.blocks(map(samples_of, blocks)):
                under_way.popleft()
                yield block, batch
        except ComputationError as error:
            if not under_way:
                raise
            # On a GPU two may be, and any of them may have made the device fail.
            names = " and ".join(block.names for block in under_way)
            raise ComputationError(f"{names}: {error}") from error

    def stop(self) -> list[tuple[Block, RapidGradBatch]]:
        """See `Computer.stop`; there never is anything left."""
        return []


def open_computer(
    model: ModelSettings,
    device: str,
    workers: int | None,
    tokens_per_batch: int | None,
    trust_remote_code: bool,
    plan: Plan,
    dimension: int,
) -> Computer:
    """Load the model in this process or in as many workers as are wanted and worth their start.

    Args:
        model: to be loaded.
        device: as of ``--device``.
        workers: as of ``--workers``; None for one per GPU.
        tokens_per_batch: as of ``--tokens-per-batch``.
        trust_remote_code: whether the checkpoint's own Python code may run.
        plan: tells how much there is to do.
        dimension: K.

    Raises:
        ModelError, DependencyError, SettingError: the model cannot be loaded on the devices, see `load_model`.
        ComputationError: the workers died while they loaded it.
    """
    devices = worker_devices(device, workers, local_directory(model.model, "config.json"))
    if len(devices) > 1:
        budget = TokenBudget.for_device(tokens_per_batch, torch.device(devices[0].partition(":")[0]), dimension)
        blocks = math.ceil(max(plan.tokens / budget.tokens, len(plan.new) / budget.samples))
        if blocks < len(devices):
            logger.info("there is work for %d of %d workers", blocks, len(devices))
            devices = devices[:blocks]
    if len(devices) == 1:
        return InProcess(model, devices[0], trust_remote_code)
    return WorkerPool(model, devices, trust_remote_code)
