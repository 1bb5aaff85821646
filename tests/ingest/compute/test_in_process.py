"""A computer in this process: which samples it names when the device fails."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rapidin.attribution import ONE_STATE
from rapidin.errors import ComputationError
from rapidin.ingest.compute.in_process import InProcess
from rapidin.settings import GradientSettings, ProjectionSettings
from tests.ingest.planned import single_blocks

SETTINGS = SimpleNamespace(traced=(), gradient=GradientSettings(), section=ProjectionSettings(dimension=64))


def engine(*_: object) -> Any:
    return SimpleNamespace(device=torch.device("cpu"), close=lambda: None)


@pytest.mark.parametrize(("done", "names"), [(1, "sample '1' and sample '2'"), (2, "sample '2'")])
def test_all_blocks_under_way_are_named(done: int, names: str) -> None:
    def fails_in_the_third(blocks: Iterator[tuple[Any, Any]]) -> Iterator[Any]:
        begun = [next(blocks)[0] for _ in range(3)]
        yield from ((block, None) for block in begun[:done])
        raise ComputationError("the device failed")

    loaded: Any = SimpleNamespace(model=None, parameters=(), states=ONE_STATE)
    with InProcess(loaded, engine, lambda *_: SimpleNamespace(blocks=fails_in_the_third)) as computer:
        computer.start(SETTINGS, 20)  # type: ignore[arg-type]
        with pytest.raises(ComputationError, match=f"^{names}: the device failed$"):
            list(computer.compute(single_blocks(5)))


def test_batches_are_computed_with_the_budget_that_cuts_the_blocks() -> None:
    budgets = []

    def runner(_: object, budget: Any) -> Any:
        budgets.append(budget)
        return SimpleNamespace(blocks=iter)

    loaded: Any = SimpleNamespace(model=None, parameters=(), states=ONE_STATE)
    with InProcess(loaded, engine, runner) as computer:
        budget = computer.start(SETTINGS, 20)  # type: ignore[arg-type]
    assert budgets == [budget]
    assert budget.tokens == 20
