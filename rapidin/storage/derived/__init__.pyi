from . import (
    derived_rows as derived_rows,
)
from .indexes import (
    EXACT as EXACT,
)
from .indexes import (
    IndexBuilder as IndexBuilder,
)
from .indexes import (
    IndexView as IndexView,
)
from .indexes import (
    IvfOptions as IvfOptions,
)
from .indexes import (
    checks as checks,
)
from .indexes import (
    drop as drop,
)
from .indexes import (
    index_info as index_info,
)
