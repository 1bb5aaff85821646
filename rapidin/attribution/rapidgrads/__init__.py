"""RapidGrads: per-sample gradients that are normalised by layer and projected, in batches that fit into memory."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
