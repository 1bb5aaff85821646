from .intervals import (
    Bootstrap as Bootstrap,
)
from .metering import (
    Meter as Meter,
)
from .ranking_measures import (
    PAPER_KS as PAPER_KS,
    average_precision as average_precision,
    correlation as correlation,
    ends_measures as ends_measures,
    overlap as overlap,
    precision as precision,
    ranking as ranking,
    reciprocal_rank as reciprocal_rank,
    tie_order as tie_order,
)
