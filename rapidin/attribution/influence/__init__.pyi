from .directions import (
    ROUNDING as ROUNDING,
    ROUNDING_LOW as ROUNDING_LOW,
    Direction as Direction,
    direction_of as direction_of,
    significant as significant,
)
from .explainer import (
    ExactInfluence as ExactInfluence,
    Explainer as Explainer,
)
from .forward_mode import (
    differentiable_forwards as differentiable_forwards,
    token_losses as token_losses,
)
from .gradient_products import (
    GradientProducts as GradientProducts,
    WholeGradient as WholeGradient,
    in_groups as in_groups,
    over_tensors as over_tensors,
    query_gradient as query_gradient,
)
from .prefixes import (
    target_places as target_places,
)
from .probe_sums import (
    Probe as Probe,
    Probes as Probes,
    TakenAway as TakenAway,
)
from .section_explainer import (
    SectionDirections as SectionDirections,
    SectionExplainer as SectionExplainer,
    SectionInfluence as SectionInfluence,
)
from .token_queries import (
    TokenQueries as TokenQueries,
)
