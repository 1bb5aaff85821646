from .batches import (
    TokenBudget as TokenBudget,
)
from .batches import (
    compute_block as compute_block,
)
from .batches import (
    compute_blocks as compute_blocks,
)
from .batches import (
    compute_in_batches as compute_in_batches,
)
from .batches import (
    in_batches as in_batches,
)
from .rapidgrad_engine import (
    RapidGradBatch as RapidGradBatch,
)
from .rapidgrad_engine import (
    RapidGradEngine as RapidGradEngine,
)
