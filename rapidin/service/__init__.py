"""A store behind HTTP: searches, samples, a page to ask on; see `rapidin serve --help`.

FastAPI, uvicorn and prometheus-client (``rapidin[serve]``) are imported here only, this package by one command.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
