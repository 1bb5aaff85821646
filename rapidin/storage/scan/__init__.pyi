from . import (
    exact as exact,
)
from .decoded import (
    settle_torch as settle_torch,
)
from .exact import (
    MOST_THREADS as MOST_THREADS,
    processors as processors,
)
from .gpu_scan import (
    GpuSearch as GpuSearch,
)
from .ranking import (
    Best as Best,
    Ends as Ends,
    best_of as best_of,
    joined as joined,
    nothing as nothing,
)
