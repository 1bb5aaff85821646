from .batch_runner import (
    BatchRunner as BatchRunner,
    too_large_for_memory as too_large_for_memory,
)
from .model_states import (
    ONE_STATE as ONE_STATE,
    ModelStates as ModelStates,
    visiting as visiting,
)
from .rapidgrad_engine import (
    RapidGradBatch as RapidGradBatch,
    RapidGradEngine as RapidGradEngine,
)
from .section_runner import (
    SectionRunner as SectionRunner,
    joined_query as joined_query,
)
from .token_budget import (
    TokenBudget as TokenBudget,
)
