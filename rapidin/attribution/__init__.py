"""The mathematics: gradients, projections, RapidGrads, exact influence and curvature."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
