"""The linear maps from a gradient to its RapidGrad.

`shuffled` is the paper's: random shuffling and Rademacher projection of the formed gradient. `factored` sketches a
layer's gradient from its factors. A store is made with one of them and never mixes them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
