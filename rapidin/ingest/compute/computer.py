"""The protocol of computers, and the choice between this process and several workers."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Protocol, Self

import torch

from rapidin.attribution import RapidGradBatch, TokenBudget
from rapidin.ingest.blocks import WorkBlock
from rapidin.ingest.compute.in_process import InProcess
from rapidin.ingest.compute.local_workers import LocalWorkers
from rapidin.ingest.compute.messages import Load
from rapidin.ingest.compute.scheduler import Scheduler
from rapidin.model import load_model, local_directory, worker_devices
from rapidin.settings import ModelSettings, StoreSettings, TracedParameter
from rapidin.support import processors

logger = logging.getLogger(__name__)


class Computer(Protocol):
    """Computes blocks with a model that it has loaded; use it in a ``with`` statement.

    Results do not depend on the number of processes, to the last bit.

    Attributes:
        parameters: the model's traced parameter tensors.
        processes: number of processes that compute.
    """

    parameters: tuple[TracedParameter, ...]
    processes: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def start(self, settings: StoreSettings, tokens_per_batch: int | None) -> TokenBudget:
        """Get ready for a store's blocks.

        Args:
            settings: settings of the store.
            tokens_per_batch: number of padded tokens of a batch; None for a number that suits the device.

        Returns:
            Limits of one batch.

        Raises:
            ModelError, SettingError: the model or K does not fit the settings, see `RapidGradEngine`.
        """

    def compute(self, blocks: Iterator[WorkBlock]) -> Iterator[tuple[WorkBlock, RapidGradBatch]]:
        """Compute blocks and yield each with its RapidGrads, in their order.

        It can be called again once all results were yielded.

        Raises:
            ComputationError: a worker or device failed beyond repair.
            RapidinError: an error of `blocks`, after the results of the blocks before it.
        """

    def stop(self) -> list[tuple[WorkBlock, RapidGradBatch]]:
        """End the work at once, and return the results that `compute` has not yielded yet."""


def open_computer(
    model: ModelSettings,
    device: str,
    workers: int | None,
    tokens_per_batch: int | None,
    trust_remote_code: bool,
    samples: int,
    tokens: int,
    dimension: int,
) -> Computer:
    """Load the model in this process, or in several workers if they are wanted and there is enough work for them.

    Args:
        model: settings of the model.
        device: value of ``--device``.
        workers: value of ``--workers``; None for one worker per GPU.
        tokens_per_batch: value of ``--tokens-per-batch``.
        trust_remote_code: whether the checkpoint's own Python code may run.
        samples: number of samples to be computed.
        tokens: number of tokens of these samples.
        dimension: projection dimension K.

    Raises:
        ModelError, DependencyError, SettingError: the model cannot be loaded on the devices, see `load_model`.
        ComputationError: all workers died while they loaded it.
    """
    devices = worker_devices(device, workers, local_directory(model.model, "config.json"))
    if len(devices) > 1:
        budget = TokenBudget.for_device(tokens_per_batch, torch.device(devices[0].partition(":")[0]), dimension)
        blocks = math.ceil(max(tokens / budget.tokens, samples / budget.samples))
        if blocks < len(devices):
            logger.info("there is work for only %d of %d workers", blocks, len(devices))
            devices = devices[:blocks]
    if len(devices) == 1:
        return InProcess(load_model(model, devices[0], trust_remote_code))
    threads = _threads_of_each(len(devices))
    level = logging.getLogger("rapidin").getEffectiveLevel()
    loads = [Load(model, one, trust_remote_code, threads, level) for one in devices]
    return Scheduler(LocalWorkers(), loads)


def _threads_of_each(workers: int) -> int:
    """Return the number of threads of each worker: its share of the processors, or what OMP_NUM_THREADS allows."""
    return max(1, min(processors() // workers, torch.get_num_threads()))
