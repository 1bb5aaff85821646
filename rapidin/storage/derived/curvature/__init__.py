"""The curvature of a store: a sample of probes, kept as derived data; `curvature_kind` says what they are."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
