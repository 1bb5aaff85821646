"""The catalogue: ``store.db`` with samples, their metadata, segments and derived data, through SQLAlchemy.

Inside: sample_changes → tables → sample_rows → schema; filter_sql → metadata_sql → sql_functions;
database → schema.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
