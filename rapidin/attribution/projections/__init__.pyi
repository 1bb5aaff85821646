from .factored import (
    Copied as Copied,
    FactoredProjection as FactoredProjection,
    TensorSketch as TensorSketch,
    TransformedColumns as TransformedColumns,
)
from .factored_sketches import (
    FactoredSketches as FactoredSketches,
)
from .shuffled import (
    ShuffledProjection as ShuffledProjection,
)
from .shuffled_sketches import (
    ShuffledSketches as ShuffledSketches,
)
