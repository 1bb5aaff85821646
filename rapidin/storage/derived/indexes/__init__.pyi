from . import (
    part_reading as part_reading,
)
from .advice import (
    checks as checks,
    index_info as index_info,
)
from .builder import (
    IndexBuilder as IndexBuilder,
    drop as drop,
)
from .list_making import (
    IvfOptions as IvfOptions,
    Progress as Progress,
)
from .parameters import (
    IvfParameters as IvfParameters,
    RabitqParameters as RabitqParameters,
    from_text as from_text,
    to_text as to_text,
)
from .view import (
    EXACT as EXACT,
    IndexView as IndexView,
)
