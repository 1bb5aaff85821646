"""Methods that score training samples for queries: rapidin itself, baselines, and exact influence."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
