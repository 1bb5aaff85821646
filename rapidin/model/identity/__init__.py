"""Which model it is: where its files are, and digests of them that tell one model from another."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
