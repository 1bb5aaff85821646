"""Rows as text and as tokens: `recognise` reads the text of a row, and `Encoder` makes token ids of it.

This package knows nothing of models or stores; callers give it the tokenizer.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
