"""Networks in memory: whether they are what they should be, and the ways in which they may compute otherwise."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
