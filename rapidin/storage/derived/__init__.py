"""Data that is made from a store's samples on request and kept beside them, such as indexes.

It can be thrown away, because it can be made again.

`derived_kind` says what a kind of derived data is. Inside: derived_building → inspection → kinds → indexes →
derived_files, derived_kind → derived_records.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
