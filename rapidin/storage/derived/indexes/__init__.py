"""Indexes for approximate search: derived data, made from segments and thrown away without loss.

An index is a row in the database, perhaps a file that all its parts share, and one part for each segment that
it covers: an immutable file in ``STORE/indexes/``. Rows of other segments are compared exactly, so that a search
right after an ingest misses nothing; scores are always exact, only the choice of candidates is not.

``ivf``     vectors are sorted into lists by a k-means of their folded directions; a search reads the few lists
            that are nearest to its query
``rabitq``  one bit per number: a search reads these first, and the stored vectors of the best candidates only

view → ivf, rabitq → loading → catalog · builder → repairing → loading
builder → preparing, rabitq → training, tuning · writing
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
