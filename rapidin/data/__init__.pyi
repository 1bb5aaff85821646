from .files import (
    SUFFIXES as SUFFIXES,
)
from .files import (
    read_rows as read_rows,
)
from .row import (
    Row as Row,
)
