"""The computer that computes in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from rapidin.attribution import (
    BatchRunner,
    FisherDraw,
    RapidGradBatch,
    RapidGradEngine,
    SectionRunner,
    TokenBudget,
)
from rapidin.errors import ComputationError
from rapidin.ingest.blocks import WorkBlock
from rapidin.ingest.spool import PlannedSample
from rapidin.model import LoadedModel
from rapidin.settings import StoreSettings


class InProcess:
    """Computes blocks in this process; see `Computer`.

    Args:
        loaded: the model.
        make_engine: function that makes the engine, given the model, its traced parameters, and the settings of
            projection and gradient.
        make_runner: function that makes the runner of blocks, given the engine and its budget; the runner may
            begin a block before it has yielded the previous one.
    """

    processes = 1

    def __init__(
        self,
        loaded: LoadedModel,
        make_engine: Callable[..., RapidGradEngine] = RapidGradEngine,
        make_runner: Callable[[RapidGradEngine, TokenBudget], BatchRunner] = BatchRunner,
    ) -> None:
        self._loaded = loaded
        self._make_engine = make_engine
        self._make_runner = make_runner
        self._engine: RapidGradEngine | None = None
        self._batches: SectionRunner | None = None
        self.parameters = loaded.parameters

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._engine is not None:
            self._engine.close()

    def start(self, settings: StoreSettings, tokens_per_batch: int | None) -> TokenBudget:
        """See `Computer.start`."""
        self._engine = self._make_engine(self._loaded.model, settings.traced, settings.section, settings.gradient)
        budget = TokenBudget.for_device(tokens_per_batch, self._engine.device, settings.section.dimension)
        self._batches = SectionRunner(self._make_runner(self._engine, budget), self._loaded.states)
        return budget

    def compute(self, blocks: Iterator[WorkBlock]) -> Iterator[tuple[WorkBlock, RapidGradBatch]]:
        """See `Computer.compute`."""
        if self._batches is None:
            raise RuntimeError("start comes before compute")
        under_way: deque[WorkBlock] = deque()

        def begun(block: WorkBlock) -> tuple[WorkBlock, Sequence[PlannedSample], FisherDraw | None]:
            under_way.append(block)
            return block, block.samples, block.draw

        try:
            for block, batch in self._batches.blocks(map(begun, blocks)):
                under_way.popleft()
                yield block, batch
        except ComputationError as error:
            if not under_way:
                raise
            # On a GPU two blocks may be under way, and each of them may be the cause.
            names = " and ".join(block.names for block in under_way)
            raise ComputationError(f"{names}: {error}") from error

    def stop(self) -> list[tuple[WorkBlock, RapidGradBatch]]:
        """See `Computer.stop`; no result is ever left here."""
        return []
