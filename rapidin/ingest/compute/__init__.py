"""The computing of an ingest's blocks, in this process or by workers.

`Computer` is what the pipeline sees. `InProcess` is one. `Scheduler` is another, which hands blocks to workers
that it knows only through `Transport` and `Worker`. `LocalWorkers`, processes of this machine, is one transport.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
