"""The only home of transformers' model loading and of PEFT: models, tokenizers, fingerprints, generation.

A name of this package is imported when it is first used, because `loading` and `generation` take seconds to
import; `fingerprints` and `locating` do not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
