"""Ingest: from data files to RapidGrads in a store. It adds to a store and goes on after an interruption."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
