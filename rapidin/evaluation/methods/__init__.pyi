from .registry import (
    METHODS as METHODS,
    QUICK as QUICK,
    Context as Context,
    MethodOptions as MethodOptions,
    method_settings as method_settings,
    methods_to_run as methods_to_run,
    require_packages as require_packages,
)
from .saved_scores import (
    DIRECTORY_NAME as DIRECTORY_NAME,
    SavedScores as SavedScores,
    data_digest as data_digest,
    digest_of as digest_of,
)
from .scoring import (
    AskedQuery as AskedQuery,
    Tell as Tell,
    TrainingSet as TrainingSet,
    step_of as step_of,
)
from .scoring_run import (
    MethodScores as MethodScores,
    ScoringRun as ScoringRun,
)
from .tracin import (
    TracIn as TracIn,
)
