from . import (
    garbage as garbage,
)
from .compaction import (
    compact_store as compact_store,
)
from .inventory import (
    store_info as store_info,
)
from .verification import (
    verify_store as verify_store,
)
