"""The stage of ``rapidin demo``: a small data set with a planted backdoor, and a tiny model trained on it.

Knows nothing of gradients, stores or searches.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
