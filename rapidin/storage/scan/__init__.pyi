from . import (
    exact as exact,
)
from .decoded import (
    settle_torch as settle_torch,
)
from .exact import (
    MOST_THREADS as MOST_THREADS,
)
from .exact import (
    processors as processors,
)
from .gpu_scan import (
    GpuSearch as GpuSearch,
)
from .ranking import (
    Best as Best,
)
from .ranking import (
    Ends as Ends,
)
from .ranking import (
    best_of as best_of,
)
from .ranking import (
    joined as joined,
)
from .ranking import (
    nothing as nothing,
)
