from .contributions import (
    Contribution as Contribution,
    DenseGradient as DenseGradient,
    OuterProducts as OuterProducts,
    ParameterGradient as ParameterGradient,
    ScatteredRows as ScatteredRows,
    as_matrix as as_matrix,
)
from .engine import (
    Accumulator as Accumulator,
    GradientEngine as GradientEngine,
    SumOverSamples as SumOverSamples,
)
from .gradient_sources import (
    AutogradGradients as AutogradGradients,
    GradientSource as GradientSource,
    HookedGradients as HookedGradients,
)
from .normalisation import (
    GivenNorms as GivenNorms,
    Normalisation as Normalisation,
    OwnNorms as OwnNorms,
    RecordedNorms as RecordedNorms,
    Unnormalised as Unnormalised,
    scale as scale,
    squared_norms as squared_norms,
    squares_for as squares_for,
)
from .objectives import (
    Differentiated as Differentiated,
    FisherDraw as FisherDraw,
    NamedSample as NamedSample,
    TargetBatch as TargetBatch,
    TokenSample as TokenSample,
    padded_ids as padded_ids,
    token_objectives as token_objectives,
    weighted_objective as weighted_objective,
)
from .position_scaling import (
    PositionScaling as PositionScaling,
)
from .substitution import (
    call_with as call_with,
)
