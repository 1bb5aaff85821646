from .exporting import (
    export_vectors as export_vectors,
)
from .importing import (
    import_vectors as import_vectors,
)
from .recoding import (
    recode as recode,
)
