"""Models with the architecture of a checkpoint and random weights, and the saving of trained models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from rapidin.errors import ModelError
from rapidin.model.loading import library_call


def untrained_model(place: str, seed: int, trust_remote_code: bool = False) -> nn.Module:
    """Make a causal language model with the architecture of a checkpoint and random weights in float32.

    Args:
        place: directory or hub id of a checkpoint; only its configuration is read.
        seed: seed of the weights; the caller's random numbers are not changed.
        trust_remote_code: whether the checkpoint's own Python code may run.

    Raises:
        ModelError: the configuration cannot be used.
    """

    def make() -> Any:
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)

    model: nn.Module = library_call(f"architecture of {place!r}", make).float()
    return model


def save_model(model: Any, directory: Path) -> None:
    """Save a model so that transformers can load it.

    Args:
        model: a model of transformers.
        directory: directory to save it to; it is created if it does not exist.

    Raises:
        ModelError: the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        library_call(f"model for {str(directory)!r}", lambda: model.save_pretrained(directory))
    except OSError as error:
        raise ModelError(f"{directory}: the model cannot be saved ({error}); give another place") from error
