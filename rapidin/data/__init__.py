"""Data files as rows: JSON Lines, JSON, CSV and Parquet become a stream of `Row`.

Knows nothing of prompts, tokens or models: a row is its file, its number and its fields.

Parquet is read through `datasets`, in streaming mode, without the network and without leaving anything in the
user's cache. The other formats are not, because `datasets` alters their values (measured with 5.2.0):

- JSON: a column whose every value looks like a date becomes timestamps ("2020-01-01" → a datetime, time zone
  lost), 1 beside 2.5 becomes 1.0, 2**70 becomes 1.1805916207174113e+21, and in an array of objects the ids 1
  and "x" become "1" and '"x"'; a broken line is reported without its number and nothing after it can be read.
- CSV: if the first row has a cell too many, every row's cells shift by one column silently (the first becomes an
  index); missing cells become empty ones silently; another bad row takes up to 10,000 rows with it.

Those are decoded by the standard library, row by row, so that one odd row costs one row.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
