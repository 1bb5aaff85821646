from .as_json import (
    to_json as to_json,
)
from .evaluation_reports import (
    BackdoorReport as BackdoorReport,
)
from .evaluation_reports import (
    Caching as Caching,
)
from .evaluation_reports import (
    CurvePoint as CurvePoint,
)
from .evaluation_reports import (
    EndsQuality as EndsQuality,
)
from .evaluation_reports import (
    FidelityReport as FidelityReport,
)
from .evaluation_reports import (
    MethodCost as MethodCost,
)
from .evaluation_reports import (
    MethodQuality as MethodQuality,
)
from .evaluation_reports import (
    MethodTracing as MethodTracing,
)
from .evaluation_reports import (
    Outlook as Outlook,
)
from .evaluation_reports import (
    OverlapAt as OverlapAt,
)
from .evaluation_reports import (
    TracedAt as TracedAt,
)
from .evaluation_reports import (
    TraceReport as TraceReport,
)
from .maintenance_reports import (
    CompactReport as CompactReport,
)
from .maintenance_reports import (
    ExportReport as ExportReport,
)
from .maintenance_reports import (
    ImportReport as ImportReport,
)
from .maintenance_reports import (
    RecodeReport as RecodeReport,
)
from .progress import (
    IngestListener as IngestListener,
)
from .progress import (
    Preflight as Preflight,
)
from .progress import (
    Progress as Progress,
)
from .results import (
    Hit as Hit,
)
from .results import (
    Query as Query,
)
from .results import (
    SearchResult as SearchResult,
)
from .results import (
    TokenInfluence as TokenInfluence,
)
from .results import (
    TokenResult as TokenResult,
)
from .stored import (
    IndexInfo as IndexInfo,
)
from .stored import (
    IndexReport as IndexReport,
)
from .stored import (
    IngestReport as IngestReport,
)
from .stored import (
    RowFailure as RowFailure,
)
from .stored import (
    Sample as Sample,
)
from .stored import (
    SegmentInfo as SegmentInfo,
)
from .stored import (
    StoreInfo as StoreInfo,
)
from .stored import (
    VerifyReport as VerifyReport,
)
