from .choices import (
    CURVATURE_DAMPING as CURVATURE_DAMPING,
    CURVATURE_PROBES as CURVATURE_PROBES,
    MAX_NEW_TOKENS as MAX_NEW_TOKENS,
    RERANKED_PER_RESULT as RERANKED_PER_RESULT,
    Answers as Answers,
    Bits as Bits,
    DampingChoice as DampingChoice,
    DType as DType,
    ExportFormat as ExportFormat,
    IndexChoice as IndexChoice,
    IndexKind as IndexKind,
    MeasureChoice as MeasureChoice,
    Objective as Objective,
    OnError as OnError,
    ProjectionKind as ProjectionKind,
    Quantization as Quantization,
    RowObjective as RowObjective,
    Shape as Shape,
    Targets as Targets,
)
from .flags import (
    Flag as Flag,
)
from .json_fields import (
    json_options as json_options,
)
from .search_options import (
    SEARCH_OPTIONS as SEARCH_OPTIONS,
    Part as Part,
    SearchKeywords as SearchKeywords,
    SearchOption as SearchOption,
    SearchOptions as SearchOptions,
    options_as_keywords as options_as_keywords,
    options_with as options_with,
)
from .setting_table import (
    STORE_SETTINGS as STORE_SETTINGS,
    stated as stated,
)
from .store_settings import (
    CODEC_OF_BITS as CODEC_OF_BITS,
    MINIMUM_PROJECTION_DIM as MINIMUM_PROJECTION_DIM,
    CodecSettings as CodecSettings,
    Fingerprint as Fingerprint,
    Frozen as Frozen,
    GradientSettings as GradientSettings,
    ModelSettings as ModelSettings,
    ProbeShape as ProbeShape,
    ProjectionSettings as ProjectionSettings,
    RequestedSettings as RequestedSettings,
    ResolvedSettings as ResolvedSettings,
    StatedSettings as StatedSettings,
    StoreSettings as StoreSettings,
    Template as Template,
    TextSettings as TextSettings,
    TracedParameter as TracedParameter,
    section_of as section_of,
    shares_of as shares_of,
)
