"""Data files as rows: JSON Lines, JSON, CSV and Parquet become a stream of `Row`.

This package knows nothing of prompts, tokens or models. A row consists of its file, its number and its fields.

Parquet is read through pyarrow. JSON and CSV are decoded by the standard library, row by row, so that a broken row
does not affect others. Readers that guess the types of whole columns, such as those of pyarrow and `datasets`,
alter values ("2020-01-01" becomes a date, 1 beside 2.5 becomes 1.0), and with them one broken line makes the rest
of the file unreadable.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
