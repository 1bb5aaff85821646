"""rapidin: which training samples made my language model say this?

>>> import rapidin
>>> rapidin.ingest_files("store", ["train.jsonl"], model="my-fine-tuned-model")
>>> with rapidin.Searcher("store") as searcher:
...     result = searcher.search("Who won the match?")
>>> for hit in result.proponents:
...     print(hit.score, hit.id, hit.response)

`__init__.pyi` lists everything that programs may use. Each name is loaded when it is first used, so importing
rapidin itself costs nothing.
"""

import lazy_loader

__version__ = "0.1.0"
"""The version; pyproject.toml reads it from here."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
