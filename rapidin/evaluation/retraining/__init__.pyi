from .inputs import (
    inputs_digest as inputs_digest,
)
from .retraining_pool import (
    Job as Job,
)
from .retraining_pool import (
    WriteData as WriteData,
)
from .retraining_pool import (
    retrained_losses as retrained_losses,
)
from .trainer import (
    Training as Training,
)
