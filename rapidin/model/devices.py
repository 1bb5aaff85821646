"""From ``--device`` to the place of the weights: one device, or a map over several."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rapidin.errors import SettingError

_HEADROOM = 0.6
"""Share of a device's free memory that weights may take; activations and gradients need the rest."""


def check_device(device: str) -> None:
    """Check the form of ``--device`` without looking for the device, which takes torch.

    Raises:
        SettingError: it is not of this form.
    """
    if re.fullmatch(r"auto|cpu|cuda(:\d+(,\d+)*)?", device) is None:
        raise SettingError(f"--device {device!r} is not one of auto, cpu, cuda, cuda:0 or cuda:0,1")


def placement(device: str, directory: Path | None) -> dict[str, Any]:
    """Choose the loading arguments of transformers for a device.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``cuda:0,1``. ``auto`` takes the first GPU where
            there is one, all of them where the weights need it, else the CPU; several numbers spread the
            layers over those GPUs.
        directory: of the checkpoint, to learn the weights' size; None if unknown.

    Returns:
        ``device_map`` and, for several GPUs, ``max_memory``.

    Raises:
        SettingError: no such device, or it is not of this form.
    """
    import torch

    check_device(device)
    if device == "auto":
        if not torch.cuda.is_available():
            return {"device_map": "cpu"}
        weights = sum(file.stat().st_size for file in directory.glob("*.safetensors")) if directory else 0
        free, _ = torch.cuda.mem_get_info(0)
        return {"device_map": "cuda:0" if weights < _HEADROOM * free else "auto"}
    if device == "cpu":
        return {"device_map": "cpu"}
    if not torch.cuda.is_available():
        raise SettingError(f"--device {device}: torch sees no CUDA device here; give --device cpu")
    numbers = [int(number) for number in device.partition(":")[2].split(",") if number] or [0]
    count = torch.cuda.device_count()
    for number in numbers:
        if number >= count:
            raise SettingError(f"--device {device}: there are {count} CUDA devices, numbered from 0")
    if len(numbers) == 1:
        return {"device_map": f"cuda:{numbers[0]}"}
    memory = {number: int(_HEADROOM * torch.cuda.mem_get_info(number)[0]) for number in numbers}
    return {"device_map": "auto", "max_memory": memory}
