"""The demo: a small data set with a planted backdoor, a tiny model trained on it, and a search for the culprits.

The modules of the data and of the model know nothing of stores or searches; `run_demo` brings all together.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
