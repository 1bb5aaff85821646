from .batches import (
    TokenBudget as TokenBudget,
    compute_block as compute_block,
    compute_blocks as compute_blocks,
    compute_in_batches as compute_in_batches,
    in_batches as in_batches,
)
from .rapidgrad_engine import (
    RapidGradBatch as RapidGradBatch,
    RapidGradEngine as RapidGradEngine,
)
