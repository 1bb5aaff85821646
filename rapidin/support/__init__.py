"""Helpers that know nothing of rapidin's own ideas: texts, files, processes, memory, interruptions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
