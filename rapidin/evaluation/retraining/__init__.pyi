from .inputs import (
    inputs_digest as inputs_digest,
)
from .retraining_pool import (
    Job as Job,
    WriteData as WriteData,
    retrained_losses as retrained_losses,
)
from .trainer import (
    Training as Training,
)
