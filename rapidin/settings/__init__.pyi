from .choices import (
    RERANKED_PER_RESULT as RERANKED_PER_RESULT,
)
from .choices import (
    Bits as Bits,
)
from .choices import (
    DType as DType,
)
from .choices import (
    ExportFormat as ExportFormat,
)
from .choices import (
    IndexChoice as IndexChoice,
)
from .choices import (
    IndexKind as IndexKind,
)
from .choices import (
    Loss as Loss,
)
from .choices import (
    Objective as Objective,
)
from .choices import (
    OnError as OnError,
)
from .choices import (
    ProjectionKind as ProjectionKind,
)
from .choices import (
    Quantization as Quantization,
)
from .choices import (
    Shape as Shape,
)
from .requested import (
    RequestedSettings as RequestedSettings,
)
from .requested import (
    ResolvedSettings as ResolvedSettings,
)
from .requested import (
    resolve as resolve,
)
from .search_options import (
    Options as Options,
)
from .search_options import (
    Part as Part,
)
from .search_options import (
    SearchOptions as SearchOptions,
)
from .store_settings import (
    MINIMUM_PROJECTION_DIM as MINIMUM_PROJECTION_DIM,
)
from .store_settings import (
    CodecSettings as CodecSettings,
)
from .store_settings import (
    Fingerprint as Fingerprint,
)
from .store_settings import (
    Frozen as Frozen,
)
from .store_settings import (
    ModelSettings as ModelSettings,
)
from .store_settings import (
    ProjectionSettings as ProjectionSettings,
)
from .store_settings import (
    StoreSettings as StoreSettings,
)
from .store_settings import (
    Template as Template,
)
from .store_settings import (
    TextSettings as TextSettings,
)
from .store_settings import (
    TracedParameter as TracedParameter,
)
