from .datamodeling import (
    Retraining as Retraining,
    linear_datamodeling as linear_datamodeling,
)
from .label_experiments import (
    TRACING_KS as TRACING_KS,
    LabelExperiment as LabelExperiment,
    backdoor as backdoor,
    trace as trace,
)
from .plots import (
    plot_precision as plot_precision,
)
from .questions import (
    Answers as Answers,
    Label as Label,
    Questions as Questions,
    read_questions as read_questions,
    span_reader as span_reader,
)
from .stored_fidelity import (
    fidelity as fidelity,
)
