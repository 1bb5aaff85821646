from .index_choice import (
    EXACT as EXACT,
    SearchIndexes as SearchIndexes,
)
from .index_kind import (
    IndexKind as IndexKind,
    IndexKindBase as IndexKindBase,
    SearchIndex as SearchIndex,
    is_index as is_index,
)
from .ivf import (
    IvfKind as IvfKind,
)
from .list_making import (
    IvfOptions as IvfOptions,
)
from .rabitq import (
    RabitqKind as RabitqKind,
)
