from .directions import (
    ROUNDING as ROUNDING,
)
from .directions import (
    ROUNDING_LOW as ROUNDING_LOW,
)
from .directions import (
    Direction as Direction,
)
from .directions import (
    direction_of as direction_of,
)
from .directions import (
    significant as significant,
)
from .explainer import (
    ExactInfluence as ExactInfluence,
)
from .explainer import (
    Explainer as Explainer,
)
from .forward_mode import (
    differentiable_forwards as differentiable_forwards,
)
from .forward_mode import (
    token_losses as token_losses,
)
from .gradient_products import (
    GradientProducts as GradientProducts,
)
from .gradient_products import (
    WholeGradient as WholeGradient,
)
from .gradient_products import (
    in_groups as in_groups,
)
from .gradient_products import (
    over_tensors as over_tensors,
)
from .gradient_products import (
    query_gradient as query_gradient,
)
from .prefixes import (
    target_places as target_places,
)
from .token_queries import (
    TokenQueries as TokenQueries,
)
