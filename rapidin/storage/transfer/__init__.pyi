from .exporting import (
    export_snapshot as export_snapshot,
)
from .importing import (
    import_vectors as import_vectors,
)
from .recoding import (
    recode as recode,
)
