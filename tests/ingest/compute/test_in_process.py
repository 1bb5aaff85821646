"""A computer in this process: which samples it names when the device fails."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rapidin.errors import ComputationError
from rapidin.ingest.compute.in_process import InProcess
from rapidin.settings import ProjectionSettings
from tests.ingest.planned import single_blocks

SETTINGS = SimpleNamespace(traced=(), projection=ProjectionSettings(dimension=64))


def engine(*_: object) -> Any:
    return SimpleNamespace(device=torch.device("cpu"), close=lambda: None)


@pytest.mark.parametrize(("done", "names"), [(1, "sample '1' and sample '2'"), (2, "sample '2'")])
def test_all_blocks_under_way_are_named(done: int, names: str) -> None:
    def fails_in_the_third(_: object, blocks: Iterator[tuple[Any, Any]], __: object) -> Iterator[Any]:
        begun = [next(blocks)[0] for _ in range(3)]
        yield from ((block, None) for block in begun[:done])
        raise ComputationError("the device failed")

    loaded: Any = SimpleNamespace(model=None, parameters=())
    with InProcess(loaded, engine, fails_in_the_third) as computer:
        computer.start(SETTINGS, 20)  # type: ignore[arg-type]
        with pytest.raises(ComputationError, match=f"^{names}: the device failed$"):
            list(computer.compute(single_blocks(5)))


def test_the_blocks_budget_is_not_the_one_that_memory_halves() -> None:
    budgets = []

    def compute(_: object, blocks: Iterator[tuple[Any, Any]], own: Any) -> Iterator[Any]:
        budgets.append(own)
        yield from ()

    loaded: Any = SimpleNamespace(model=None, parameters=())
    with InProcess(loaded, engine, compute) as computer:
        budget = computer.start(SETTINGS, 20)  # type: ignore[arg-type]
        list(computer.compute(single_blocks(1)))
    assert budgets[0] is not budget
    assert budgets[0].tokens == budget.tokens == 20
