from .borrowed import (
    BorrowedNetwork as BorrowedNetwork,
)
from .model_checks import (
    check_causal as check_causal,
    check_configuration as check_configuration,
    check_unexpected as check_unexpected,
    check_weights_have_gradients as check_weights_have_gradients,
)
from .quantised_layers import (
    SteadyLayers as SteadyLayers,
)
from .tensors_in_memory import (
    adapter_tensors as adapter_tensors,
    base_tensors as base_tensors,
)
