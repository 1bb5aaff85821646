from .index_choice import (
    EXACT as EXACT,
    SearchIndexes as SearchIndexes,
)
from .index_kinds import (
    IVF as IVF,
    RABITQ as RABITQ,
)
from .list_making import (
    IvfOptions as IvfOptions,
)
