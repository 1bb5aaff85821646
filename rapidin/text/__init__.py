"""Rows as text and tokens: what a sample says (`recognise`), and what the model sees of it (`Encoder`).

This package knows nothing of models or stores; callers hand in the tokenizer.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
