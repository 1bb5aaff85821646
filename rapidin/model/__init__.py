"""The only home of transformers' model loading and of PEFT: models, tokenizers, fingerprints, generation.

Its modules are imported one by one, because `loading` and `generation` cost seconds to import and
`fingerprint` and `places` do not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
