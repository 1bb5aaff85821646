from .curvature import (
    Curvature as Curvature,
)
from .curvature import (
    GaussNewton as GaussNewton,
)
from .curvature import (
    InverseCurvature as InverseCurvature,
)
from .curvature import (
    Lissa as Lissa,
)
from .curvature import (
    drawn as drawn,
)
from .curvature import (
    stacked as stacked,
)
from .curvature import (
    unstacked as unstacked,
)
from .gradients import (
    TokenSample as TokenSample,
)
from .influence import (
    ROUNDING as ROUNDING,
)
from .influence import (
    ROUNDING_LOW as ROUNDING_LOW,
)
from .influence import (
    Direction as Direction,
)
from .influence import (
    ExactInfluence as ExactInfluence,
)
from .influence import (
    Explainer as Explainer,
)
from .influence import (
    GradientProducts as GradientProducts,
)
from .influence import (
    TokenQueries as TokenQueries,
)
from .influence import (
    WholeGradient as WholeGradient,
)
from .influence import (
    direction_of as direction_of,
)
from .influence import (
    in_groups as in_groups,
)
from .influence import (
    over_tensors as over_tensors,
)
from .influence import (
    query_gradient as query_gradient,
)
from .influence import (
    significant as significant,
)
from .influence import (
    target_places as target_places,
)
from .influence import (
    token_losses as token_losses,
)
from .rapidgrads import (
    RapidGradBatch as RapidGradBatch,
)
from .rapidgrads import (
    RapidGradEngine as RapidGradEngine,
)
from .rapidgrads import (
    TokenBudget as TokenBudget,
)
from .rapidgrads import (
    compute_blocks as compute_blocks,
)
from .rapidgrads import (
    compute_in_batches as compute_in_batches,
)
