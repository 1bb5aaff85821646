"""Whole stores on the move: export to other programs, import, and copies with another codec.

`export_format` says what an export is.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
