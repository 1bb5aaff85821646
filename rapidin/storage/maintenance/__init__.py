"""What a whole store holds, checks of all of it, files that nobody needs any more, and compaction."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
