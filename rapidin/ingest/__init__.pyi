from .probes import (
    compute_curvature as compute_curvature,
)
from .run import (
    ingest_files as ingest_files,
)
