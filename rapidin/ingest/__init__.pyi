from .learning_rates import (
    place_and_rate as place_and_rate,
)
from .probes import (
    compute_curvature as compute_curvature,
)
from .run import (
    ingest_files as ingest_files,
)
