from .measured_scoring import (
    MethodScores as MethodScores,
    ScoringRun as ScoringRun,
)
from .registry import (
    ALWAYS as ALWAYS,
    METHODS as METHODS,
    QUICK_METHODS as QUICK_METHODS,
    Context as Context,
    MethodOptions as MethodOptions,
    method_settings as method_settings,
    methods_to_judge as methods_to_judge,
    methods_to_run as methods_to_run,
    require_packages as require_packages,
)
from .saved_scores import (
    SCORES_DIRECTORY as SCORES_DIRECTORY,
    SavedScores as SavedScores,
    data_digest as data_digest,
    digest_of as digest_of,
)
from .scorer import (
    AskedQuery as AskedQuery,
    StepProgress as StepProgress,
    TrainingSet as TrainingSet,
    progress_of_step as progress_of_step,
)
from .tracin import (
    TracIn as TracIn,
)
