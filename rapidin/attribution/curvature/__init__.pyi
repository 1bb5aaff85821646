from .curvature_products import (
    Curvature as Curvature,
    drawn as drawn,
)
from .inverse import (
    GaussNewton as GaussNewton,
    InverseCurvature as InverseCurvature,
)
from .lissa import (
    Lissa as Lissa,
)
from .parameter_vectors import (
    stacked as stacked,
    unstacked as unstacked,
)
