from .corrections import (
    StoreCorrections as StoreCorrections,
)
from .devices import (
    check_device as check_device,
    worker_devices as worker_devices,
)
from .hidden_states import (
    mean_hidden_states as mean_hidden_states,
)
from .identity import (
    absolute_place as absolute_place,
    check_same as check_same,
    checked_settings as checked_settings,
    fingerprint as fingerprint,
    local_directory as local_directory,
    with_checkpoints as with_checkpoints,
)
from .loading import (
    LoadedModel as LoadedModel,
    load_model as load_model,
    load_tokenizer as load_tokenizer,
    make_encoder as make_encoder,
)
from .store_model import (
    ModelParts as ModelParts,
    StoreModel as StoreModel,
)
from .training_loop import (
    Schedule as Schedule,
    StepCallback as StepCallback,
    batch_loss as batch_loss,
    fit as fit,
    mean_loss as mean_loss,
)
from .untrained_models import (
    save_model as save_model,
    untrained_model as untrained_model,
)
