from .curvature_kind import (
    CURVATURE as CURVATURE,
    CurvatureOptions as CurvatureOptions,
    CurvatureState as CurvatureState,
)
from .probe_choice import (
    MOST_DRAWS as MOST_DRAWS,
    ProbeRequest as ProbeRequest,
)
from .probe_file import (
    ComputedProbes as ComputedProbes,
    StoredCurvature as StoredCurvature,
)
