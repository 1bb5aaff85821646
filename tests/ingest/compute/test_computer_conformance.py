"""Every computer keeps to what `Computer` promises, and so does the simplest one that there can be."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, Self

import pytest
import torch

from rapidin.attribution import ONE_STATE, RapidGradBatch, TokenBudget
from rapidin.errors import ComputationError, ModelError
from rapidin.ingest.blocks import WorkBlock
from rapidin.ingest.compute import Computer
from rapidin.ingest.compute.in_process import InProcess
from rapidin.ingest.compute.messages import Load
from rapidin.ingest.compute.scheduler import Scheduler
from rapidin.settings import ModelSettings, StoreSettings, TracedParameter
from tests.ingest.compute.computer_conformance import ComputerConformance, MakeComputer, vectors_of
from tests.ingest.compute.stub_workers import DEVICE_FAILS, FAILS, StubThreads

pytestmark = pytest.mark.timeout(60)

LOAD = Load(ModelSettings(model="m"), "cpu", False, 1, logging.WARNING)


def computed(block: WorkBlock) -> RapidGradBatch:
    """Compute a block, or fail at certain tokens."""
    first = block.samples[0].ids[0]
    if first == FAILS:
        raise ModelError("no such layer")
    if first == DEVICE_FAILS:
        raise ComputationError("the device failed")
    return RapidGradBatch(vectors_of(block), {})


class Runner:
    """Stands for a `BatchRunner` in this process."""

    def blocks(self, blocks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[WorkBlock, RapidGradBatch]]:
        for block, *_ in blocks:
            yield block, computed(block)


def in_process() -> Computer:
    loaded: Any = SimpleNamespace(model=None, parameters=(), states=ONE_STATE)

    def engine(*_: object) -> Any:
        return SimpleNamespace(device=torch.device("cpu"), close=lambda: None)

    def runner(*_: object) -> Any:
        return Runner()

    return InProcess(loaded, engine, runner)


def two_workers() -> Computer:
    return Scheduler(StubThreads(), [LOAD] * 2)


def four_workers() -> Computer:
    return Scheduler(StubThreads(), [LOAD] * 4)


class OneByOne:
    """Takes a block, computes it and hands it over."""

    processes = 1
    parameters: tuple[TracedParameter, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def start(self, settings: StoreSettings, tokens_per_batch: int | None) -> TokenBudget:
        return TokenBudget.for_device(tokens_per_batch, torch.device("cpu"), settings.section.dimension)

    def compute(self, blocks: Iterator[WorkBlock]) -> Iterator[tuple[WorkBlock, RapidGradBatch]]:
        for block in blocks:
            try:
                yield block, computed(block)
            except ComputationError as error:
                raise ComputationError(f"{block.names}: {error}") from error

    def stop(self) -> list[tuple[WorkBlock, RapidGradBatch]]:
        return []


class TestComputers(ComputerConformance):
    @pytest.fixture(params=[in_process, two_workers, four_workers, OneByOne], ids=lambda make: make.__name__)
    def make_computer(self, request: pytest.FixtureRequest) -> MakeComputer:
        make: MakeComputer = request.param
        return make
