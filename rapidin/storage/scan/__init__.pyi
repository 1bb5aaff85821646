from .choosing import (
    scan_on as scan_on,
)
from .cpu_scan import (
    MOST_THREADS as MOST_THREADS,
    CpuScan as CpuScan,
)
from .gpu_scan import (
    GpuScan as GpuScan,
)
from .ranking import (
    Best as Best,
    Ends as Ends,
    best_of as best_of,
    joined as joined,
    nothing as nothing,
)
from .scan_protocol import (
    Scan as Scan,
)
