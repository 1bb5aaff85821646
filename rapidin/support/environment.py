"""Environment variables that a process of rapidin runs with, unless the user has set them."""

VARIABLES = {"THP_MEM_ALLOC_ENABLE": "1", "GOMP_SPINCOUNT": "1000"}
"""Both variables are set before torch is imported, because libraries read them when they are loaded or first used.

``THP_MEM_ALLOC_ENABLE`` lets torch ask Linux for pages of 2 MiB when it allocates that much. The system empties
every page of fresh memory before it hands it out. With pages of 4 KiB this takes a tenth of ingest's time on a
CPU, because gradients and transforms are large and short-lived. If the system grants no such pages, nothing
changes.

``GOMP_SPINCOUNT`` says how long a thread of OpenMP that waits for its team keeps a core busy. The default is
longer than most steps of the factored projection take. If another program wants the core, too, the thread that
the team waits for does not get it. Measured on two cores, the default took twice as long beside one busy
process and five times as long beside three; alone it is a few per cent faster. Without any spinning, a lone
process would take a tenth to a fifth longer.
"""
