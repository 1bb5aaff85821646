"""The choice of the scan that a search uses, by ``--device`` and by what is installed."""

from __future__ import annotations

import logging
import re

from rapidin.storage.scan.cpu_scan import CpuScan
from rapidin.storage.scan.gpu_scan import GpuScan
from rapidin.storage.scan.scan_protocol import Scan
from rapidin.storage.vectors import load_faiss

logger = logging.getLogger(__name__)


def scan_on(device: str = "cpu") -> Scan:
    """Return the scan by the GPUs that ``--device`` names, or by the CPU if FAISS can use none of them.

    Args:
        device: name of the device: ``auto`` (all GPUs), ``cpu``, ``cuda``, ``cuda:0`` or ``cuda:0,1``.
    """
    if device == "cpu":
        return CpuScan()
    import torch

    if not torch.cuda.is_available():
        return CpuScan()
    faiss = load_faiss()
    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        logger.info(
            "vectors are searched on the CPU, because this faiss has no GPU support: pip uninstall faiss-cpu and "
            "pip install 'rapidin[gpu]' to use the GPU"
        )
        return CpuScan()
    count = min(torch.cuda.device_count(), faiss.get_num_gpus())
    named = [int(number) for number in re.findall(r"\d+", device)]
    numbers = named or list(range(count if device == "auto" else 1))
    usable = [f"cuda:{number}" for number in dict.fromkeys(numbers) if number < count]
    if not usable:
        logger.info("vectors are searched on the CPU, because FAISS does not see device %s", device)
        return CpuScan()
    return GpuScan(usable, CpuScan())
