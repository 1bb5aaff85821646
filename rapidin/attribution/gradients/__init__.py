"""Per-sample gradients of a causal language model, parameter tensor by parameter tensor."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
