"""Scans, which compare stored vectors with queries exactly, by the CPU or by GPUs, and the ranking of scores."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
