"""A model of a checkpoint's architecture with random weights, and saving what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from rapidin.errors import ModelError
from rapidin.model.loading import attempt


def fresh_model(place: str, seed: int, trust_remote_code: bool = False) -> nn.Module:
    """Make a causal language model of an architecture with random weights in float32.

    Args:
        place: directory or hub id of a checkpoint, of which only the configuration is read.
        seed: of the weights; the caller's random numbers are left alone.
        trust_remote_code: whether the checkpoint's own Python code may run.

    Raises:
        ModelError: the configuration cannot be used.
    """

    def make() -> Any:
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)

    model: nn.Module = attempt(f"architecture of {place!r}", make).float()
    return model


def save_model(model: Any, directory: Path) -> None:
    """Save a model as transformers loads it.

    Raises:
        ModelError: the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        attempt(f"model for {str(directory)!r}", lambda: model.save_pretrained(directory))
    except OSError as error:
        raise ModelError(f"{directory}: the model cannot be saved ({error}); give another place") from error
