from .intervals import (
    Bootstrap as Bootstrap,
)
from .intervals import (
    Estimate as Estimate,
)
from .metering import (
    Meter as Meter,
)
from .ranking_measures import (
    PAPER_KS as PAPER_KS,
)
from .ranking_measures import (
    average_precision as average_precision,
)
from .ranking_measures import (
    correlation as correlation,
)
from .ranking_measures import (
    ends_measures as ends_measures,
)
from .ranking_measures import (
    overlap as overlap,
)
from .ranking_measures import (
    precision as precision,
)
from .ranking_measures import (
    ranking as ranking,
)
from .ranking_measures import (
    reciprocal_rank as reciprocal_rank,
)
from .ranking_measures import (
    tie_order as tie_order,
)
