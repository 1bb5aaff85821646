"""Environment variables that a process of rapidin runs with, unless the user has set them."""

HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""torch asks Linux for pages of 2 MiB where it allocates as much; read at its first allocation.

Of fresh memory the system hands out every page by itself, emptied. In pages of 4 KiB that is a tenth of ingest's
time on a CPU: gradients and transforms are large and soon used up. Where the system grants no such pages, nothing
changes.
"""
