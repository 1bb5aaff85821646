from .factored import (
    Copied as Copied,
)
from .factored import (
    FactoredProjection as FactoredProjection,
)
from .factored import (
    TensorSketch as TensorSketch,
)
from .factored import (
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
