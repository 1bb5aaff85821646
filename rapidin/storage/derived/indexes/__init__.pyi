from . import (
    part_reading as part_reading,
)
from .advice import (
    checks as checks,
)
from .advice import (
    index_info as index_info,
)
from .builder import (
    IndexBuilder as IndexBuilder,
)
from .builder import (
    drop as drop,
)
from .list_making import (
    IvfOptions as IvfOptions,
)
from .list_making import (
    Progress as Progress,
)
from .parameters import (
    IvfParameters as IvfParameters,
)
from .parameters import (
    RabitqParameters as RabitqParameters,
)
from .parameters import (
    from_text as from_text,
)
from .parameters import (
    to_text as to_text,
)
from .view import (
    EXACT as EXACT,
)
from .view import (
    IndexView as IndexView,
)
