"""The transformers model inside a wrapper."""

from __future__ import annotations

from typing import Any

from torch import nn


def inner_model(model: nn.Module) -> Any:
    """Return the model inside PEFT's wrapper, with the adapter's layers in place; a bare model is returned itself.

    PEFT's wrapper passes calls on, but not everything: its forward accepts any argument, and attributes that are
    set on it do not reach the model.
    """
    wrapper: Any = model
    return wrapper.get_base_model() if hasattr(wrapper, "get_base_model") else wrapper
