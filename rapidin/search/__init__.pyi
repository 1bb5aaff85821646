from .queries import (
    COMMAND_LINE as COMMAND_LINE,
    read_queries as read_queries,
)
from .searcher import (
    Searcher as Searcher,
)
