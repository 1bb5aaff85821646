"""Experiments on a store: finding labelled samples, comparing with exact scores, predicting retraining."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
