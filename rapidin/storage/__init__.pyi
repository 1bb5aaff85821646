from .catalog import (
    MetadataChange as MetadataChange,
    NewSample as NewSample,
)
from .derived import (
    ComputedProbes as ComputedProbes,
    CurvatureOptions as CurvatureOptions,
    CurvatureState as CurvatureState,
    ProbeRequest as ProbeRequest,
    StepProgress as StepProgress,
    StoredCurvature as StoredCurvature,
)
from .filters import (
    Condition as Condition,
    check_bounded as check_bounded,
    metadata_hash as metadata_hash,
    parse as parse,
)
from .scan import (
    Scan as Scan,
    scan_on as scan_on,
)
from .snapshot import (
    Snapshot as Snapshot,
)
from .store import (
    Store as Store,
)
from .store_files import (
    file_errors as file_errors,
)
from .store_writer import (
    StoreWriter as StoreWriter,
)
from .transfer import (
    export_vectors as export_vectors,
    import_vectors as import_vectors,
    recode as recode,
)
from .vector_source import (
    Found as Found,
    OpenSource as OpenSource,
    VectorSource as VectorSource,
)
