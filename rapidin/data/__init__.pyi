from .files import (
    SUFFIXES as SUFFIXES,
    read_rows as read_rows,
)
from .row import (
    Row as Row,
)
