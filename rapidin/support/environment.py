"""Environment variables that a process of rapidin runs with, unless the user has set them."""

VARIABLES = {"THP_MEM_ALLOC_ENABLE": "1", "GOMP_SPINCOUNT": "1000"}
"""Both are read by libraries when they are loaded or first used, so they are set before torch is imported.

``THP_MEM_ALLOC_ENABLE``: torch asks Linux for pages of 2 MiB where it allocates as much. Of fresh memory the
system hands out every page by itself, emptied. In pages of 4 KiB that is a tenth of ingest's time on a CPU:
gradients and transforms are large and soon used up. Where the system grants no such pages, nothing changes.

``GOMP_SPINCOUNT``: how long a thread of OpenMP that waits for its team keeps a core busy. The default is longer
than most steps of the factored projection take, and where another program wants the core too, the thread that the
team waits for does not get it. Measured on two cores: with one other busy process the default took twice as long,
with three five times; alone it is a few per cent faster. Not to spin at all would cost a tenth to a fifth alone.
"""
