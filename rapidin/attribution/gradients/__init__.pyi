from .contributions import (
    Contribution as Contribution,
)
from .contributions import (
    DenseGradient as DenseGradient,
)
from .contributions import (
    OuterProducts as OuterProducts,
)
from .contributions import (
    ParameterGradient as ParameterGradient,
)
from .contributions import (
    ScatteredRows as ScatteredRows,
)
from .contributions import (
    as_matrix as as_matrix,
)
from .engine import (
    Accumulator as Accumulator,
)
from .engine import (
    GradientEngine as GradientEngine,
)
from .engine import (
    TokenSample as TokenSample,
)
from .normalisation import (
    GivenNorms as GivenNorms,
)
from .normalisation import (
    Normalisation as Normalisation,
)
from .normalisation import (
    OwnNorms as OwnNorms,
)
from .normalisation import (
    RecordedNorms as RecordedNorms,
)
from .normalisation import (
    Unnormalised as Unnormalised,
)
from .normalisation import (
    scale as scale,
)
from .normalisation import (
    squared_norms as squared_norms,
)
from .normalisation import (
    squares_for as squares_for,
)
from .objectives import (
    token_objectives as token_objectives,
)
