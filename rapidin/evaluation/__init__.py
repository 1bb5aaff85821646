"""Evaluation: are the samples that rapidin finds the right ones? Methods are compared by experiments."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
