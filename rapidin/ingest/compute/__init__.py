"""Computing of an ingest's blocks, in this process or by workers.

The pipeline knows only the protocol `Computer`, which two classes implement. `InProcess` computes in this process.
`Scheduler` gives blocks to workers, which it knows only through the protocols `Transport` and `Worker`.
`LocalWorkers` is the transport whose workers are processes of this machine.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
