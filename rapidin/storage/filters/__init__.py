"""Filter expressions such as ``topic=odd``: what they mean, and how metadata is filed for them; no SQL."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
