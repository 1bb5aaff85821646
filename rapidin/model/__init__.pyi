from .devices import (
    check_device as check_device,
)
from .devices import (
    worker_devices as worker_devices,
)
from .fingerprint import (
    check_same as check_same,
)
from .fingerprint import (
    fingerprint as fingerprint,
)
from .fresh_models import (
    fresh_model as fresh_model,
)
from .fresh_models import (
    save_model as save_model,
)
from .hidden_states import (
    mean_hidden_states as mean_hidden_states,
)
from .loading import (
    Tokenizer as Tokenizer,
)
from .loading import (
    load_model as load_model,
)
from .loading import (
    load_tokenizer as load_tokenizer,
)
from .locating import (
    absolute_place as absolute_place,
)
from .locating import (
    local_directory as local_directory,
)
from .session import (
    QueryModel as QueryModel,
)
from .training_loop import (
    IGNORED as IGNORED,
)
from .training_loop import (
    Schedule as Schedule,
)
from .training_loop import (
    StepCallback as StepCallback,
)
from .training_loop import (
    batch_loss as batch_loss,
)
from .training_loop import (
    fit as fit,
)
from .training_loop import (
    one_thread as one_thread,
)
from .training_loop import (
    padded as padded,
)
