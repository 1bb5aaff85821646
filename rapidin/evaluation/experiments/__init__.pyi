from .attacked_queries import (
    behaviour_of as behaviour_of,
)
from .datamodeling import (
    Retraining as Retraining,
    linear_datamodeling as linear_datamodeling,
)
from .experiment_data import (
    Label as Label,
    QueryRows as QueryRows,
    read_query_rows as read_query_rows,
    span_reader as span_reader,
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
from .retrained_queries import (
    RetrainingPlace as RetrainingPlace,
)
from .stored_fidelity import (
    fidelity as fidelity,
)
from .top_removal import (
    Removal as Removal,
    query_loss_differences as query_loss_differences,
)
