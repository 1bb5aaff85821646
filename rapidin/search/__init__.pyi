from .queries import (
    read_queries as read_queries,
)
from .searcher import (
    Searcher as Searcher,
)
