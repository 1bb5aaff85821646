from .locks import (
    HOLDER_NAME as HOLDER_NAME,
    LOCK_NAME as LOCK_NAME,
    writer_lock as writer_lock,
)
from .read_only import (
    StoreConnection as StoreConnection,
    opened_unchanging as opened_unchanging,
    state_of as state_of,
)
from .reader_generations import (
    READERS_NAME as READERS_NAME,
    ReadersLock as ReadersLock,
    is_readers_file as is_readers_file,
    removable as removable,
)
