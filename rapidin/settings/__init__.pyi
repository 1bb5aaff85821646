from .choices import (
    RERANKED_PER_RESULT as RERANKED_PER_RESULT,
    Bits as Bits,
    DType as DType,
    ExportFormat as ExportFormat,
    IndexChoice as IndexChoice,
    IndexKind as IndexKind,
    Objective as Objective,
    OnError as OnError,
    ProjectionKind as ProjectionKind,
    Quantization as Quantization,
    Shape as Shape,
    Targets as Targets,
)
from .requested import (
    RequestedSettings as RequestedSettings,
    ResolvedSettings as ResolvedSettings,
    resolve as resolve,
)
from .search_options import (
    Options as Options,
    Part as Part,
    SearchOptions as SearchOptions,
)
from .store_settings import (
    CODEC_OF_BITS as CODEC_OF_BITS,
    MINIMUM_PROJECTION_DIM as MINIMUM_PROJECTION_DIM,
    CodecSettings as CodecSettings,
    Fingerprint as Fingerprint,
    Frozen as Frozen,
    ModelSettings as ModelSettings,
    ProjectionSettings as ProjectionSettings,
    StoreSettings as StoreSettings,
    Template as Template,
    TextSettings as TextSettings,
    TracedParameter as TracedParameter,
)
