"""From data files to RapidGrads in a store: incremental, resumable, each batch whole or not at all."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
