"""From a generation to the training samples behind it."""

from rapidin.search.searcher import Searcher

__all__ = ["Searcher"]
