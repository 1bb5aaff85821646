"""Blocks one after another, and on a GPU (here a stand-in for one) one block behind."""

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rapidin.attribution.rapidgrads import (
    BatchRunner,
    RapidGradBatch,
    RapidGradEngine,
    TokenBudget,
)
from rapidin.errors import ComputationError, DataFileError
from rapidin.settings.store_settings import ProjectionSettings
from tests import tiny
from tests.attribution.gradients.test_against_autograd import Tokens, random_samples
from tests.attribution.rapidgrads.test_rapidgrad import parameters_of

DIMENSION = 256


class Overlapping:
    """An engine that says it is on a GPU, and writes down when batches are begun and finished."""

    def __init__(
        self,
        engine: RapidGradEngine,
        forbidden: int | None = None,
        begin_errors: dict[int, Exception] | None = None,
        finish_errors: dict[int, Exception] | None = None,
    ) -> None:
        self.device = SimpleNamespace(type="cuda")
        self.dimension = self.row_dimension = DIMENSION
        self.events: list[tuple[str, int]] = []
        self._engine = engine
        self._forbidden = forbidden
        self._begin_errors = begin_errors or {}
        self._finish_errors = finish_errors or {}

    def begin(self, samples: list[Tokens], draw: None = None) -> Any:
        if any(self._forbidden in sample.ids for sample in samples):
            raise IndexError("out of range")
        number = samples[0].ids[0]
        self.events.append(("begin", number))
        if number - 90 in self._begin_errors:
            raise self._begin_errors.pop(number - 90)
        pending = self._engine.begin(samples, draw)

        def finish() -> RapidGradBatch:
            self.events.append(("finish", number))
            if number - 90 in self._finish_errors:
                raise self._finish_errors[number - 90]
            return pending.finish()

        return SimpleNamespace(finish=finish)

    def compute(self, samples: list[Tokens], draw: None = None) -> RapidGradBatch:
        result: RapidGradBatch = self.begin(samples, draw).finish()
        return result


@pytest.fixture
def engine() -> Iterator[RapidGradEngine]:
    model = tiny.make("gpt2")
    settings = ProjectionSettings(kind="factored", dimension=DIMENSION)
    with RapidGradEngine(model, parameters_of(model), settings) as engine:
        yield engine


def blocks_of(samples: list[Tokens]) -> list[tuple[int, list[Tokens], None]]:
    samples = sorted(samples, key=lambda sample: -len(sample.ids))
    blocks = [(number, samples[2 * number : 2 * number + 2], None) for number in range(len(samples) // 2)]
    for number, block, _ in blocks:
        block[0].ids[0] = 90 + number  # tells the blocks apart
    return blocks


def budget() -> TokenBudget:
    return TokenBudget.for_device(1_000, torch.device("cpu"), DIMENSION)


def test_on_a_cpu_a_block_is_handed_on_at_once(engine: RapidGradEngine) -> None:
    blocks = blocks_of(random_samples(6))
    seen = []

    def given() -> Iterator[tuple[int, list[Tokens], None] | None]:
        for block in blocks:
            assert seen == list(range(block[0]))
            yield block
            yield None

    for number, batch in BatchRunner(engine, budget()).blocks(given()):
        np.testing.assert_array_equal(
            batch.vectors, BatchRunner(engine, budget()).block(blocks[number][1]).vectors
        )
        seen.append(number)
    assert seen == [0, 1, 2]


def test_on_a_gpu_a_block_is_copied_while_the_next_is_computed(engine: RapidGradEngine) -> None:
    gpu = Overlapping(engine)
    blocks = blocks_of(random_samples(6))
    expected = [BatchRunner(engine, budget()).block(samples).vectors for _, samples, _ in blocks]
    found = list(BatchRunner(gpu, budget()).blocks(blocks))  # type: ignore[arg-type]
    assert [number for number, _ in found] == [0, 1, 2]
    for (_, batch), vectors in zip(found, expected, strict=True):
        np.testing.assert_array_equal(batch.vectors, vectors)
    order = [f"{what} {number - 90}" for what, number in gpu.events]
    assert order == ["begin 0", "begin 1", "finish 0", "begin 2", "finish 1", "finish 2"]


def test_on_a_gpu_nothing_waits_for_a_block_that_is_not_there(engine: RapidGradEngine) -> None:
    gpu = Overlapping(engine)
    first, second = blocks_of(random_samples(4))
    list(BatchRunner(gpu, budget()).blocks([first, None, second]))  # type: ignore[arg-type]
    order = [f"{what} {number - 90}" for what, number in gpu.events]
    assert order == ["begin 0", "finish 0", "begin 1", "finish 1"]


def test_on_a_gpu_too_a_sample_that_the_model_fails_on_is_its_own_problem(engine: RapidGradEngine) -> None:
    blocks = blocks_of(random_samples(6))
    blocks[1][1][1].ids[1] = 89
    for _, samples, _ in blocks:
        for sample in samples:
            sample.ids[2:] = [token if token != 89 else 5 for token in sample.ids[2:]]
    gpu = Overlapping(engine, forbidden=89)
    found = list(BatchRunner(gpu, budget()).blocks(blocks))  # type: ignore[arg-type]
    assert [sorted(batch.problems) for _, batch in found] == [[], [1], []]
    assert "IndexError: out of range" in found[1][1].problems[1]


DEAD = RuntimeError("CUDA error: device-side assert triggered")


def taken(gpu: Overlapping, blocks: Any) -> tuple[list[int], Exception | None]:
    """Blocks that were handed on, and what was raised after them."""
    found: list[int] = []
    try:
        for number, batch in BatchRunner(gpu, budget()).blocks(blocks):  # type: ignore[arg-type]
            assert not batch.problems
            found.append(number)
    except Exception as error:  # noqa: BLE001 - the tests look at it
        return found, error
    return found, None


def test_on_a_gpu_a_block_that_was_begun_comes_before_the_error_of_the_blocks(engine: RapidGradEngine) -> None:
    def broken() -> Iterator[tuple[int, list[Tokens]]]:
        yield from blocks_of(random_samples(4))
        raise DataFileError("the file has changed")

    found, error = taken(Overlapping(engine), broken())
    assert found == [0, 1]
    assert isinstance(error, DataFileError)


def test_on_a_gpu_a_block_that_was_begun_comes_before_the_device_s_failure(engine: RapidGradEngine) -> None:
    gpu = Overlapping(engine, begin_errors={1: DEAD})
    found, error = taken(gpu, blocks_of(random_samples(6)))
    assert found == [0]
    assert isinstance(error, ComputationError)


@pytest.mark.parametrize("number", [1, 2])
def test_on_a_gpu_a_failure_that_is_seen_at_the_end_of_a_block_is_the_device_s(
    engine: RapidGradEngine, number: int
) -> None:
    gpu = Overlapping(engine, finish_errors={number: DEAD})
    found, error = taken(gpu, blocks_of(random_samples(6)))
    assert found == list(range(number))
    assert isinstance(error, ComputationError)
    assert "the device failed: RuntimeError: CUDA error" in str(error)
    assert gpu.events.count(("finish", 90 + number)) == 1


def test_on_a_gpu_memory_that_runs_out_is_freed_before_the_next_try(
    engine: RapidGradEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = Overlapping(engine, begin_errors={1: torch.OutOfMemoryError("CUDA out of memory")})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: gpu.events.append(("empty", 91)))
    with caplog.at_level(logging.DEBUG, "rapidin"):
        assert taken(gpu, blocks_of(random_samples(6))) == ([0, 1, 2], None)
    order = [f"{what} {number - 90}" for what, number in gpu.events]
    assert order[:5] == ["begin 0", "begin 1", "empty 1", "begin 1", "finish 1"]
    assert not [record for record in caplog.records if "the model failed" in record.getMessage()]
