from .curvature_products import (
    Curvature as Curvature,
    drawn as drawn,
)
from .gauss_newton import (
    GaussNewton as GaussNewton,
)
from .inverse_curvature import (
    InverseCurvature as InverseCurvature,
)
from .lissa import (
    Lissa as Lissa,
)
from .parameter_vectors import (
    stacked as stacked,
    unstacked as unstacked,
)
from .query_correction import (
    PROBE_SEED as PROBE_SEED,
    QueryCorrection as QueryCorrection,
)
