"""One writer and many readers at a time: locks, generations of readers, and stores that nobody may write to."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
