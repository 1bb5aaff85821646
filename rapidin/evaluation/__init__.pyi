from .experiments import (
    Label as Label,
)
from .experiments import (
    LdsReport as LdsReport,
)
from .experiments import (
    Questions as Questions,
)
from .experiments import (
    Retraining as Retraining,
)
from .experiments import (
    Setting as Setting,
)
from .experiments import (
    backdoor as backdoor,
)
from .experiments import (
    fidelity as fidelity,
)
from .experiments import (
    linear_datamodeling as linear_datamodeling,
)
from .experiments import (
    plot_precision as plot_precision,
)
from .experiments import (
    read_questions as read_questions,
)
from .experiments import (
    span_reader as span_reader,
)
from .experiments import (
    trace as trace,
)
from .methods import (
    DIRECTORY_NAME as DIRECTORY_NAME,
)
from .methods import (
    QUICK as QUICK,
)
from .methods import (
    Options as Options,
)
from .methods import (
    Tell as Tell,
)
from .methods import (
    chosen as chosen,
)
from .methods import (
    method_settings as method_settings,
)
from .metrics import (
    PAPER_KS as PAPER_KS,
)
from .metrics import (
    Estimate as Estimate,
)
from .retraining import (
    Training as Training,
)
