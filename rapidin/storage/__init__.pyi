from .catalog import (
    NewSample as NewSample,
)
from .catalog import (
    ScoredSample as ScoredSample,
)
from .filters import (
    Condition as Condition,
)
from .filters import (
    check_bounded as check_bounded,
)
from .filters import (
    metadata_hash as metadata_hash,
)
from .filters import (
    parse as parse,
)
from .scan import (
    GpuSearch as GpuSearch,
)
from .scan import (
    settle_torch as settle_torch,
)
from .snapshot import (
    Snapshot as Snapshot,
)
from .store import (
    Store as Store,
)
from .store_writer import (
    StoreWriter as StoreWriter,
)
from .transfer import (
    import_vectors as import_vectors,
)
from .transfer import (
    recode as recode,
)
