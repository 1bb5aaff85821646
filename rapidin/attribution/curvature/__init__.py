"""The training loss's curvature: products with it and with its inverse, which influence functions need."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
