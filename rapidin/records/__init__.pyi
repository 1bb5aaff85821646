from .evaluation_reports import (
    BackdoorReport as BackdoorReport,
    BehaviourMark as BehaviourMark,
    CachingCost as CachingCost,
    CurvePoint as CurvePoint,
    EndsQuality as EndsQuality,
    FidelityReport as FidelityReport,
    Interval as Interval,
    LdsReport as LdsReport,
    MethodCost as MethodCost,
    MethodLds as MethodLds,
    MethodQld as MethodQld,
    MethodQuality as MethodQuality,
    MethodTracing as MethodTracing,
    Outlook as Outlook,
    OverlapAt as OverlapAt,
    QldReport as QldReport,
    TracedAt as TracedAt,
    TraceReport as TraceReport,
)
from .hits import (
    Hit as Hit,
    Measure as Measure,
    Query as Query,
    SearchResult as SearchResult,
    TokenInfluence as TokenInfluence,
    TokenResult as TokenResult,
)
from .ingest_reports import (
    IngestedCurvature as IngestedCurvature,
    IngestReport as IngestReport,
    Preflight as Preflight,
    RowFailure as RowFailure,
)
from .json_form import (
    to_json as to_json,
)
from .listeners import (
    IngestListener as IngestListener,
    Progress as Progress,
)
from .samples import (
    Sample as Sample,
)
from .store_reports import (
    CompactReport as CompactReport,
    DerivedInfo as DerivedInfo,
    DerivedReport as DerivedReport,
    ExportReport as ExportReport,
    ImportReport as ImportReport,
    RecodeReport as RecodeReport,
    SegmentInfo as SegmentInfo,
    StoreInfo as StoreInfo,
    VerifyReport as VerifyReport,
)
