from .curvature import (
    PROBE_SEED as PROBE_SEED,
    Curvature as Curvature,
    GaussNewton as GaussNewton,
    InverseCurvature as InverseCurvature,
    Lissa as Lissa,
    QueryCorrection as QueryCorrection,
    drawn as drawn,
    stacked as stacked,
    unstacked as unstacked,
)
from .gradients import (
    FisherDraw as FisherDraw,
    NamedSample as NamedSample,
    TargetBatch as TargetBatch,
    TokenSample as TokenSample,
    padded_ids as padded_ids,
    weighted_objective as weighted_objective,
)
from .influence import (
    ROUNDING as ROUNDING,
    ROUNDING_LOW as ROUNDING_LOW,
    Direction as Direction,
    ExactInfluence as ExactInfluence,
    Explainer as Explainer,
    GradientProducts as GradientProducts,
    Probe as Probe,
    Probes as Probes,
    SectionDirections as SectionDirections,
    SectionExplainer as SectionExplainer,
    SectionInfluence as SectionInfluence,
    TakenAway as TakenAway,
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
from .projections import (
    suiting_kind as suiting_kind,
)
from .rapidgrads import (
    ONE_STATE as ONE_STATE,
    BatchRunner as BatchRunner,
    ModelStates as ModelStates,
    RapidGradBatch as RapidGradBatch,
    RapidGradEngine as RapidGradEngine,
    SectionRunner as SectionRunner,
    TokenBudget as TokenBudget,
)
