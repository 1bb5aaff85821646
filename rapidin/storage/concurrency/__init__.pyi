from .read_only import (
    opened_unchanging as opened_unchanging,
)
from .reader_generations import (
    READERS_NAME as READERS_NAME,
)
from .reader_generations import (
    ReadersLock as ReadersLock,
)
from .reader_generations import (
    is_readers_file as is_readers_file,
)
from .reader_generations import (
    removable as removable,
)
from .writer_lock import (
    HOLDER_NAME as HOLDER_NAME,
)
from .writer_lock import (
    LOCK_NAME as LOCK_NAME,
)
from .writer_lock import (
    writer_lock as writer_lock,
)
