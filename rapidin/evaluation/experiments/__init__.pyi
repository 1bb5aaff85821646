from .label_experiments import (
    Setting as Setting,
)
from .label_experiments import (
    backdoor as backdoor,
)
from .label_experiments import (
    trace as trace,
)
from .linear_datamodeling import (
    LdsReport as LdsReport,
)
from .linear_datamodeling import (
    Retraining as Retraining,
)
from .linear_datamodeling import (
    linear_datamodeling as linear_datamodeling,
)
from .plots import (
    plot_precision as plot_precision,
)
from .questions import (
    Label as Label,
)
from .questions import (
    Questions as Questions,
)
from .questions import (
    read_questions as read_questions,
)
from .questions import (
    span_reader as span_reader,
)
from .stored_fidelity import (
    fidelity as fidelity,
)
