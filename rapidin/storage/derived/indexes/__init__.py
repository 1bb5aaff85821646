"""Indexes for approximate search, which are derived data.

Each part of an index covers one segment and is an immutable file in ``STORE/indexes/``. Rows of other segments are
compared exactly, so that a search right after an ingest misses nothing. Scores are always exact; only the choice
of candidates is approximate.

``ivf``     vectors are sorted into lists by a k-means of their folded directions; a search reads the few lists
            that are nearest to its query
``rabitq``  vectors are kept in one bit per number; a search reads these bits first, and then the stored vectors of
            the best candidates

`index_kind` says what a kind of index is; `index_choice` knows kinds by that protocol only. Inside: ivf, rabitq →
index_kind → list_making → clustering, tuning, folding, ivf_parameters.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
