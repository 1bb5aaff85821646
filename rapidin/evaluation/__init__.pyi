from .experiments import (
    Label as Label,
    Questions as Questions,
    Retraining as Retraining,
    Setting as Setting,
    backdoor as backdoor,
    fidelity as fidelity,
    linear_datamodeling as linear_datamodeling,
    plot_precision as plot_precision,
    read_questions as read_questions,
    span_reader as span_reader,
    trace as trace,
)
from .methods import (
    DIRECTORY_NAME as DIRECTORY_NAME,
    QUICK as QUICK,
    Options as Options,
    Tell as Tell,
    chosen as chosen,
    method_settings as method_settings,
)
from .metrics import (
    PAPER_KS as PAPER_KS,
)
from .retraining import (
    Training as Training,
)
