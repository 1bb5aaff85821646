"""Whom this process names when the device fails."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rapidin.errors import ComputationError
from rapidin.ingest.blocks import BlocksAhead
from rapidin.ingest.compute.computer import InProcess
from tests.ingest.test_blocks_ahead import budget, samples


@pytest.mark.parametrize(("done", "names"), [(1, "sample '1' and sample '2'"), (2, "sample '2'")])
def test_all_blocks_under_way_are_named(done: int, names: str) -> None:
    def compute_blocks(blocks: Iterator[tuple[Any, Any]]) -> Iterator[Any]:
        begun = [next(blocks)[0] for _ in range(3)]
        yield from ((block, None) for block in begun[:done])
        raise ComputationError("the device failed")

    process = InProcess.__new__(InProcess)  # without a model
    process._batches = SimpleNamespace(blocks=compute_blocks)  # type: ignore[assignment]
    with (
        BlocksAhead(samples(5), 1, budget(20), size=2) as blocks,
        pytest.raises(ComputationError, match=f"^{names}: the device failed$"),
    ):
        list(process.compute(blocks))
