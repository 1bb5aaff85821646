"""The linear maps from a gradient to its RapidGrad.

`shuffled` is the projection of the paper (Lin et al. 2024): it shuffles the formed gradient and multiplies it with
random signs. `factored` sketches a layer's gradient from its factors. All vectors of a store are made with one of
the two.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
