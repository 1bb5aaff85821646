from .curvature_products import (
    Curvature as Curvature,
)
from .curvature_products import (
    drawn as drawn,
)
from .inverse import (
    GaussNewton as GaussNewton,
)
from .inverse import (
    InverseCurvature as InverseCurvature,
)
from .lissa import (
    Lissa as Lissa,
)
from .parameter_vectors import (
    stacked as stacked,
)
from .parameter_vectors import (
    unstacked as unstacked,
)
