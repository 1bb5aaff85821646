"""Results of searches as one HTML page that opens from disk, asks nothing of a network and can be mailed.

Knows records; not where their numbers come from.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
