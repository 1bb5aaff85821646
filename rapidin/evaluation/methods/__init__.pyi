from .registry import (
    METHODS as METHODS,
)
from .registry import (
    QUICK as QUICK,
)
from .registry import (
    Context as Context,
)
from .registry import (
    Options as Options,
)
from .registry import (
    chosen as chosen,
)
from .registry import (
    method_settings as method_settings,
)
from .saved_scores import (
    DIRECTORY_NAME as DIRECTORY_NAME,
)
from .saved_scores import (
    SavedScores as SavedScores,
)
from .saved_scores import (
    data_digest as data_digest,
)
from .saved_scores import (
    digest_of as digest_of,
)
from .scoring import (
    AskedQuery as AskedQuery,
)
from .scoring import (
    Tell as Tell,
)
from .scoring import (
    TrainingSet as TrainingSet,
)
from .scoring import (
    step_of as step_of,
)
from .scoring_run import (
    MethodScores as MethodScores,
)
from .scoring_run import (
    ScoringRun as ScoringRun,
)
from .tracin import (
    TracIn as TracIn,
)
