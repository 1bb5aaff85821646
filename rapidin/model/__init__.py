"""Models: loading, tokenizers, fingerprints, generation. Only this package uses transformers and PEFT.

Each name of this package is imported when it is first used, because importing `loading` and `generation` takes
seconds; importing `fingerprints` and `locating` does not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
