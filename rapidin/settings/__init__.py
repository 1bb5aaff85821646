"""Settings: what a store is created with, what a search is asked with, and the flags of both."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
