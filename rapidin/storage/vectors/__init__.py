"""Vectors: codecs, the immutable segment files that hold coded vectors, and the rows that a search looks at."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
