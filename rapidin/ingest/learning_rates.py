"""Learning rates of checkpoints, as a Trainer of transformers records them; read without torch."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

from rapidin.errors import ModelError, SettingError

logger = logging.getLogger(__name__)

_STATE = "trainer_state.json"


def place_and_rate(given: str) -> tuple[str, float | None]:
    """Divide DIR=RATE, the value of ``--checkpoint``, into directory and learning rate.

    Returns:
        The directory and the rate; the text as it is and None if it is DIR alone.

    Raises:
        SettingError: the rate is not above 0.
    """
    place, separator, text = given.rpartition("=")
    if not separator or not place or Path(given).is_dir():
        return given, None
    try:
        rate = float(text)
    except ValueError:
        return given, None
    if not 0 < rate < math.inf:
        raise SettingError(f"--checkpoint {given!r}: {text} is not a learning rate; give a number above 0")
    return place, rate


def learning_rates(checkpoints: Sequence[str]) -> tuple[float, ...]:
    """Read the learning rate at each checkpoint from the state that a Trainer saves beside the weights.

    It is the rate that was logged nearest to the checkpoint's step.

    Args:
        checkpoints: directories of the checkpoints.

    Returns:
        The learning rates; empty if one of them is unknown or all of them are zero, which is logged.

    Raises:
        ModelError: the file of a state is damaged.
    """
    found = [_learning_rate(Path(place)) for place in checkpoints]
    unknown = [place for place, rate in zip(checkpoints, found, strict=True) if rate is None]
    rates = tuple(rate for rate in found if rate is not None)
    if unknown:
        logger.warning(
            "checkpoint %r has no learning rate in a %s, so all have the same weight", unknown[0], _STATE
        )
        return ()
    if not sum(rates):
        logger.warning("the learning rate is 0 at every checkpoint, so all have the same weight")
        return ()
    for place, rate in zip(checkpoints, rates, strict=True):
        if rate < sum(rates) / 100:
            logger.warning(
                "checkpoint %r has %.2g of the weight, because its learning rate is %.2g: leave it out to spare "
                "its share of the numbers",
                place,
                rate / sum(rates),
                rate,
            )
    return rates


def _learning_rate(directory: Path) -> float | None:
    file = directory / _STATE
    if not file.exists():
        return None
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        step = int(state["global_step"])
        logged = [
            (abs(int(entry["step"]) - step), float(entry["learning_rate"]))
            for entry in state["log_history"]
            if "learning_rate" in entry
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{file} cannot be read: {error!r}; repair it, or remove it to give all checkpoints the same weight"
        ) from error
    return min(logged, key=lambda entry: entry[0])[1] if logged else None
