from .input_digests import (
    inputs_digest as inputs_digest,
)
from .retraining_pool import (
    WriteData as WriteData,
    retrained_losses as retrained_losses,
)
from .trainer import (
    Job as Job,
    Tokens as Tokens,
    Training as Training,
)
