"""The choice of devices from ``--device``: where each process computes, and how it spreads the weights."""

from __future__ import annotations

import logging
import os
import re
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rapidin.errors import SettingError
from rapidin.model.identity import weight_files
from rapidin.support import FreshInterpreter, error_line

logger = logging.getLogger(__name__)

_HEADROOM = 0.6
"""Share of a device's free memory that weights may take, because activations and gradients need the rest."""


def check_device(device: str, workers: int | None = None, tokens_per_batch: int | None = None) -> None:
    """Check the form of options about devices; devices are not looked for, because that needs torch.

    Args:
        device: value of ``--device``.
        workers: value of ``--workers``; None if it is not given.
        tokens_per_batch: value of ``--tokens-per-batch``; None if it is not given.

    Raises:
        SettingError: a value is not of this form, or the workers cannot share the GPUs evenly.
    """
    if re.fullmatch(r"auto|cpu|cuda(:\d+(,\d+)*)?", device) is None:
        raise SettingError(f"--device {device!r} is not one of auto, cpu, cuda, cuda:0 or cuda:0,1")
    if workers is not None and workers < 1:
        raise SettingError(f"--workers {workers} cannot be used: give at least 1")
    if tokens_per_batch is not None and tokens_per_batch < 1:
        raise SettingError(f"--tokens-per-batch {tokens_per_batch} cannot be used: give a positive number")
    if device.startswith("cuda"):
        _shared(device, _numbers(device), workers)


def worker_devices(device: str, workers: int | None, directory: Path | None) -> tuple[str, ...]:
    """Choose the device of each worker process, without opening a CUDA context in this process.

    Args:
        device: ``cuda:0,1`` gives each of these GPUs a worker of its own; ``auto`` does so with all GPUs if the
            weights fit one of them, else one worker has them all. A GPU that is named twice gets two workers.
        workers: number of workers; None for one per GPU, or one on the CPU. If there are fewer workers than GPUs,
            each spreads the model's layers over its equal share of them.
        directory: directory of the checkpoint, whose files tell the weights' size; None if unknown.

    Returns:
        Device of each worker, in the form that `placement` takes.

    Raises:
        SettingError: there is no such device, or the workers cannot share the GPUs evenly.
    """
    import torch

    check_device(device, workers)
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return ("cpu",) * (workers or 1)
    if device != "auto":
        numbers = _numbers(device)
        _check_present(device, numbers)
        return _shared(device, numbers, workers)
    count = torch.cuda.device_count()
    if workers is None:
        weights = _weight_bytes(directory) if count > 1 else 0
        workers = count if not weights or weights < _HEADROOM * _smallest_memory() else 1
    return ("auto",) if workers == 1 else _shared(device, list(range(count)), workers)


def placement(device: str, directory: Path | None) -> dict[str, Any]:
    """Choose the loading arguments of transformers for one process.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``cuda:0,1``. ``auto`` takes the first GPU, or all of
            them if the weights need it, or the CPU if there is no GPU; several numbers spread the layers over
            those GPUs.
        directory: directory of the checkpoint, whose files tell the weights' size; None if unknown.

    Returns:
        ``device_map`` and, for several GPUs, ``max_memory``.

    Raises:
        SettingError: there is no such device, or the value is not of this form.
    """
    import torch

    check_device(device)
    if device == "auto":
        if not torch.cuda.is_available():
            return {"device_map": "cpu"}
        free, _ = torch.cuda.mem_get_info(0)
        return {"device_map": "cuda:0" if _weight_bytes(directory) < _HEADROOM * free else "auto"}
    if device == "cpu":
        return {"device_map": "cpu"}
    numbers = _numbers(device)
    _check_present(device, numbers)
    if len(numbers) == 1:
        return {"device_map": f"cuda:{numbers[0]}"}
    memory = {number: int(_HEADROOM * torch.cuda.mem_get_info(number)[0]) for number in numbers}
    return {"device_map": "auto", "max_memory": memory}


_SECONDS_TO_ASK = 120
_SECONDS_TO_END = 1.0
"""Time in which the process that asked may let go of the GPUs; it is killed afterwards."""


def _smallest_memory() -> int:
    """Return the memory in bytes of the GPU that has the least; 0 if it cannot be found out.

    A separate process asks torch, because torch opens the GPUs, and this process computes nothing on them.
    """
    try:
        with Path(os.devnull).open("wb") as nowhere:
            process = FreshInterpreter("rapidin.model.devices:tell_smallest_memory", output=nowhere)
    except OSError as error:
        reason = error_line(error)
    else:
        try:
            if process.connection.poll(_SECONDS_TO_ASK):
                return int(process.connection.recv())
            reason = f"no answer within {_SECONDS_TO_ASK} seconds"
        except (EOFError, OSError):
            reason = f"the process that asked {process.how_it_ended()}"
        finally:
            process.end(time.monotonic() + _SECONDS_TO_END)
    logger.warning(
        "the memory of the GPUs cannot be found out (%s), so one process uses all of them; give --device with "
        "their numbers to have one process for each GPU",
        reason,
    )
    return 0


def tell_smallest_memory(connection: Connection) -> None:
    """Send the memory in bytes of the GPU that has the least; a short-lived process runs this."""
    import torch

    numbers = range(torch.cuda.device_count())
    connection.send(min(torch.cuda.get_device_properties(number).total_memory for number in numbers))


def _numbers(device: str) -> list[int]:
    """Read the numbers of the GPUs from a value of ``--device``; ``cuda`` alone means the first."""
    return [int(number) for number in device.partition(":")[2].split(",") if number] or [0]


def _shared(device: str, numbers: list[int], workers: int | None) -> tuple[str, ...]:
    """Divide the GPUs evenly among the workers; each worker gets GPUs with neighbouring numbers."""
    workers = workers or len(numbers)
    if len(numbers) % workers:
        gpus = f"{len(numbers)} GPU{'s' if len(numbers) > 1 else ''}"
        raise SettingError(
            f"--workers {workers} cannot share the {gpus} of --device {device} evenly: give a number that divides "
            f"{len(numbers)}, or other GPUs"
        )
    share = len(numbers) // workers
    return tuple(
        "cuda:" + ",".join(str(number) for number in numbers[first : first + share])
        for first in range(0, len(numbers), share)
    )


def _check_present(device: str, numbers: list[int]) -> None:
    """Make sure that these GPUs exist."""
    import torch

    if not torch.cuda.is_available():
        raise SettingError(f"--device {device}: torch sees no CUDA device here; give --device cpu")
    count = torch.cuda.device_count()
    for number in numbers:
        if number >= count:
            raise SettingError(f"--device {device}: there are {count} CUDA devices, numbered from 0")


def _weight_bytes(directory: Path | None) -> int:
    """Add up the sizes of a checkpoint's weight files; 0 if its directory is unknown."""
    return sum(file.stat().st_size for file in weight_files(directory, "model")) if directory else 0
