from .batch_runner import (
    BatchRunner as BatchRunner,
    too_large_for_memory as too_large_for_memory,
)
from .rapidgrad_engine import (
    RapidGradBatch as RapidGradBatch,
    RapidGradEngine as RapidGradEngine,
)
from .token_budget import (
    TokenBudget as TokenBudget,
)
