from .factored import (
    Copied as Copied,
    FactoredProjection as FactoredProjection,
    FactoredSketches as FactoredSketches,
    TensorSketch as TensorSketch,
    TransformedColumns as TransformedColumns,
)
from .projection_kinds import (
    PROJECTIONS as PROJECTIONS,
    Projection as Projection,
    make_projection as make_projection,
    suiting_kind as suiting_kind,
)
from .shuffled import (
    ShuffledProjection as ShuffledProjection,
    ShuffledSketches as ShuffledSketches,
)
