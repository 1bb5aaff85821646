from .evaluations import (
    evaluate_backdoor as evaluate_backdoor,
    evaluate_fidelity as evaluate_fidelity,
    evaluate_lds as evaluate_lds,
    evaluate_qld as evaluate_qld,
    evaluate_trace as evaluate_trace,
)
from .experiments import (
    Removal as Removal,
    Retraining as Retraining,
    plot_precision as plot_precision,
)
from .methods import (
    QUICK_METHODS as QUICK_METHODS,
    MethodOptions as MethodOptions,
    method_settings as method_settings,
)
from .metrics import (
    PAPER_KS as PAPER_KS,
)
from .retraining import (
    Training as Training,
)
