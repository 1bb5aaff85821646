"""The checks that every `Computer` has to pass; see `ComputerConformance` for how a new one runs them.

The computers of these checks have no model. A block's vectors tell its number and the sum of each sample's token
ids, and certain first tokens bring failures about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rapidin.attribution import RapidGradBatch, TokenBudget
from rapidin.errors import ComputationError, DataFileError, ModelError
from rapidin.ingest.blocks import WorkBlock
from rapidin.ingest.compute import Computer
from rapidin.ingest.spool import PlannedSample
from rapidin.settings import GradientSettings, ProjectionSettings
from tests.ingest.compute import traps
from tests.ingest.compute.stub_workers import DEVICE_FAILS, DIMENSION, FAILS
from tests.ingest.planned import planned

MakeComputer = Callable[[], Computer]

SETTINGS: Any = SimpleNamespace(
    traced=(), gradient=GradientSettings(), section=ProjectionSettings(dimension=DIMENSION)
)
MOST_AHEAD = 16
"""Largest number of blocks for each process that may be taken before the first one is handed over."""


def block(number: int, first: int = 1) -> WorkBlock:
    """A block of one to three samples, whose first token is `first`."""
    own = [planned(10 * number + row, 3) for row in range(1 + number % 3)]
    samples = tuple(
        PlannedSample(one.sample, (first, number, row), one.targets, one.replaces) for row, one in enumerate(own)
    )
    return WorkBlock(number, samples)


def blocks(number: int) -> Iterator[WorkBlock]:
    return map(block, range(number))


def vectors_of(one: WorkBlock) -> NDArray[np.float32]:
    return np.array([[one.number, sum(sample.ids)] for sample in one.samples], np.float32)


def assert_right(found: list[tuple[WorkBlock, RapidGradBatch]], numbers: list[int]) -> None:
    assert [one.number for one, _ in found] == numbers
    for one, batch in found:
        np.testing.assert_array_equal(batch.vectors, vectors_of(one))
        assert not batch.problems


class ComputerConformance:
    """Everything that a computer promises.

    A test module derives a class from this one whose name begins with ``Test``, and overrides the fixture
    `make_computer`, a function without arguments.
    """

    @pytest.fixture
    def make_computer(self) -> MakeComputer:
        raise NotImplementedError("override this fixture with what makes the computer to check")

    @pytest.fixture
    def computer(self, make_computer: MakeComputer) -> Iterator[Computer]:
        """A computer that has been started; nothing of it is left after the test."""
        before = traps.children()
        with make_computer() as computer:
            computer.start(SETTINGS, 20)
            yield computer
        assert traps.no_children_but(before)

    def test_it_says_what_it_has_before_it_starts(self, make_computer: MakeComputer) -> None:
        with make_computer() as computer:
            assert computer.parameters == ()
            assert computer.processes >= 1

    def test_the_budget_is_that_of_the_device(self, make_computer: MakeComputer) -> None:
        for tokens in (20, None):
            with make_computer() as computer:
                budget = computer.start(SETTINGS, tokens)
                assert budget == TokenBudget.for_device(tokens, torch.device("cpu"), DIMENSION)

    @pytest.mark.parametrize("number", [0, 1, 2, 100])
    def test_every_block_comes_once_and_in_order(self, computer: Computer, number: int) -> None:
        assert_right(list(computer.compute(blocks(number))), list(range(number)))

    def test_blocks_are_taken_when_they_are_needed(self, computer: Computer) -> None:
        taken: list[int] = []

        def endless() -> Iterator[WorkBlock]:
            for number in count():
                taken.append(number)
                yield block(number)

        found = list(islice(computer.compute(endless()), 10))
        assert_right(found, list(range(10)))
        assert len(taken) <= 10 + MOST_AHEAD * computer.processes

    def test_stopping_gives_what_was_not_handed_over(self, computer: Computer) -> None:
        computing = computer.compute(blocks(50))
        found = [*islice(computing, 5), *computer.stop()]
        numbers = [one.number for one, _ in found]
        assert numbers[:5] == list(range(5))
        assert numbers == sorted(set(numbers))
        assert_right(found, numbers)
        assert computer.stop() == []

    def test_an_error_in_the_data_comes_after_the_blocks_before_it(self, computer: Computer) -> None:
        def broken() -> Iterator[WorkBlock]:
            yield from blocks(7)
            raise DataFileError("the file has gone")

        found = []
        with pytest.raises(DataFileError, match=r"^the file has gone$"):
            found.extend(computer.compute(broken()))
        # `extend` keeps what came before the error.
        assert_right(found, list(range(7)))

    def test_a_model_that_cannot_be_used_is_an_error_at_once(self, computer: Computer) -> None:
        with pytest.raises(ModelError, match="no such layer"):
            list(computer.compute(block(number, FAILS if number == 3 else 1) for number in range(9)))

    def test_a_device_that_fails_is_an_error_that_names_the_samples(self, computer: Computer) -> None:
        found = []
        with pytest.raises(ComputationError, match=r"'41'.*the device failed"):
            found.extend(
                computer.compute(block(number, DEVICE_FAILS if number == 4 else 1) for number in range(9))
            )
        kept = [*found, *computer.stop()]
        numbers = [one.number for one, _ in kept]
        assert 4 not in numbers
        assert numbers == sorted(set(numbers))
        assert_right(kept, numbers)
