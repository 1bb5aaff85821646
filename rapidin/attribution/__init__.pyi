from .curvature import (
    Curvature as Curvature,
    GaussNewton as GaussNewton,
    InverseCurvature as InverseCurvature,
    Lissa as Lissa,
    drawn as drawn,
    stacked as stacked,
    unstacked as unstacked,
)
from .gradients import (
    TokenSample as TokenSample,
)
from .influence import (
    ROUNDING as ROUNDING,
    ROUNDING_LOW as ROUNDING_LOW,
    Direction as Direction,
    ExactInfluence as ExactInfluence,
    Explainer as Explainer,
    GradientProducts as GradientProducts,
    TokenQueries as TokenQueries,
    WholeGradient as WholeGradient,
    direction_of as direction_of,
    in_groups as in_groups,
    over_tensors as over_tensors,
    query_gradient as query_gradient,
    significant as significant,
    target_places as target_places,
    token_losses as token_losses,
)
from .rapidgrads import (
    RapidGradBatch as RapidGradBatch,
    RapidGradEngine as RapidGradEngine,
    TokenBudget as TokenBudget,
    compute_blocks as compute_blocks,
    compute_in_batches as compute_in_batches,
)
