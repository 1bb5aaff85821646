"""Reports: search results as one HTML page, which opens from disk, needs no network and can be sent by mail.

This package knows records, but not where their numbers come from.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
