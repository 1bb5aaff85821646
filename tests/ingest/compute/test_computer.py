"""Whom this process names when the device fails."""

from collections.abc import Iterator
from typing import Any

import pytest

from rapidin.errors import ComputationError
from rapidin.ingest.blocks import BlocksAhead
from rapidin.ingest.compute import computer
from rapidin.ingest.compute.computer import InProcess
from tests.ingest.test_blocks_ahead import budget, samples


@pytest.mark.parametrize(("done", "names"), [(1, "sample '1' and sample '2'"), (2, "sample '2'")])
def test_all_blocks_under_way_are_named(monkeypatch: pytest.MonkeyPatch, done: int, names: str) -> None:
    def compute_blocks(engine: object, blocks: Iterator[tuple[Any, Any]], budget: object) -> Iterator[Any]:
        begun = [next(blocks)[0] for _ in range(3)]
        yield from ((block, None) for block in begun[:done])
        raise ComputationError("the device failed")

    monkeypatch.setattr(computer, "compute_blocks", compute_blocks)
    process = InProcess.__new__(InProcess)  # without a model
    process._engine = process._budget = object()  # type: ignore[assignment]
    with (
        BlocksAhead(samples(5), 1, budget(20), size=2) as blocks,
        pytest.raises(ComputationError, match=f"^{names}: the device failed$"),
    ):
        list(process.compute(blocks))
