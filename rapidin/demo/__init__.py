"""The stage of ``rapidin demo``: a small data set with a planted backdoor, a tiny model, and the play.

The data and the model know nothing of gradients, stores or searches; `run_demo` brings them together.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
