"""A computer that is this process itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from rapidin.attribution import RapidGradBatch, RapidGradEngine, TokenBudget, compute_blocks
from rapidin.errors import ComputationError
from rapidin.ingest.blocks import WorkBlock
from rapidin.ingest.spool import PlannedSample
from rapidin.model import LoadedModel
from rapidin.settings import StoreSettings

ComputeBlocks = Callable[
    [RapidGradEngine, Iterator[tuple[WorkBlock, Sequence[PlannedSample]]], TokenBudget],
    Iterator[tuple[WorkBlock, RapidGradBatch]],
]


class InProcess:
    """Computes blocks in this process; see `Computer`.

    Args:
        loaded: the model.
        make_engine: class of the engine; its arguments are the model, its traced parameters and the projection.
        compute_blocks: function that computes one block after the other; it may begin one before it has yielded
            the one before.
    """

    processes = 1

    def __init__(
        self,
        loaded: LoadedModel,
        make_engine: Callable[..., RapidGradEngine] = RapidGradEngine,
        compute_blocks: ComputeBlocks = compute_blocks,
    ) -> None:
        self._loaded = loaded
        self._make_engine = make_engine
        self._compute_blocks = compute_blocks
        self._engine: RapidGradEngine | None = None
        self._budget: TokenBudget | None = None
        self.parameters = loaded.parameters

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._engine is not None:
            self._engine.close()

    def start(self, settings: StoreSettings, tokens_per_batch: int | None) -> TokenBudget:
        """See `Computer.start`."""
        self._engine = self._make_engine(
            self._loaded.model, settings.traced, settings.projection, settings.gradient
        )
        dimension = settings.projection.dimension
        self._budget = TokenBudget(tokens_per_batch, self._engine.device, dimension)
        # A second budget, because running out of memory halves the first, which must not change the blocks.
        return TokenBudget(tokens_per_batch, self._engine.device, dimension)

    def compute(self, blocks: Iterator[WorkBlock]) -> Iterator[tuple[WorkBlock, RapidGradBatch]]:
        """See `Computer.compute`."""
        if self._engine is None or self._budget is None:
            raise RuntimeError("start comes before compute")
        under_way: deque[WorkBlock] = deque()

        def begun(block: WorkBlock) -> tuple[WorkBlock, Sequence[PlannedSample]]:
            under_way.append(block)
            return block, block.samples

        try:
            for block, batch in self._compute_blocks(self._engine, map(begun, blocks), self._budget):
                under_way.popleft()
                yield block, batch
        except ComputationError as error:
            if not under_way:
                raise
            # On a GPU two blocks may be under way, and either may have made the device fail.
            names = " and ".join(block.names for block in under_way)
            raise ComputationError(f"{names}: {error}") from error

    def stop(self) -> list[tuple[WorkBlock, RapidGradBatch]]:
        """See `Computer.stop`; there never is anything left."""
        return []
