from .as_json import (
    to_json as to_json,
)
from .evaluation_reports import (
    BackdoorReport as BackdoorReport,
    CachingCost as CachingCost,
    CurvePoint as CurvePoint,
    EndsQuality as EndsQuality,
    FidelityReport as FidelityReport,
    Interval as Interval,
    LdsReport as LdsReport,
    MethodCost as MethodCost,
    MethodLds as MethodLds,
    MethodQuality as MethodQuality,
    MethodTracing as MethodTracing,
    Outlook as Outlook,
    OverlapAt as OverlapAt,
    TracedAt as TracedAt,
    TraceReport as TraceReport,
)
from .maintenance_reports import (
    CompactReport as CompactReport,
    ExportReport as ExportReport,
    ImportReport as ImportReport,
    RecodeReport as RecodeReport,
)
from .progress import (
    IngestListener as IngestListener,
    Preflight as Preflight,
    Progress as Progress,
)
from .results import (
    Hit as Hit,
    Query as Query,
    SearchResult as SearchResult,
    TokenInfluence as TokenInfluence,
    TokenResult as TokenResult,
)
from .stored import (
    IndexInfo as IndexInfo,
    IndexReport as IndexReport,
    IngestReport as IngestReport,
    RowFailure as RowFailure,
    Sample as Sample,
    SegmentInfo as SegmentInfo,
    StoreInfo as StoreInfo,
    VerifyReport as VerifyReport,
)
