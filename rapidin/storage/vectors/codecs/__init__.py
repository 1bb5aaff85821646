"""Codecs: the ways of keeping a vector in few bits, each with a name that segments record."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
