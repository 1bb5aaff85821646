"""The inventory of a whole store, its verification, removal of files that it no longer needs, and compaction."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
