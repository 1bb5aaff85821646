from . import (
    derived_rows as derived_rows,
)
from .indexes import (
    EXACT as EXACT,
    IndexBuilder as IndexBuilder,
    IndexView as IndexView,
    IvfOptions as IvfOptions,
    checks as checks,
    drop as drop,
    index_info as index_info,
)
