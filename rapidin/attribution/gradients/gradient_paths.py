"""Whether plain autograd gives a model's gradients: no layer may cut them off, in any state of the model.

Layers with quantised weights compute their outputs by kernels of their own. Some of these kernels have no backward
step, and torch then leaves the path through them out of the gradient, without a word. bitsandbytes on a CPU even
changes to such a kernel once the model has computed something without gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from rapidin.errors import ModelError
from rapidin.support import inner_model


class PathWatch:
    """Looks for linear layers through which no gradient passes; it works inside a ``with`` statement.

    Args:
        model: model whose forward passes are watched.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._cut: list[str] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Self:
        for name, module in self._model.named_modules():
            # Quantised layers need not be subclasses of torch's, but all have these two attributes.
            if hasattr(module, "in_features") and hasattr(module, "out_features"):
                self._handles.append(module.register_forward_hook(self._look(name)))
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _look(self, name: str) -> Any:
        def look(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            given = arguments[0] if arguments else None
            if not (isinstance(given, Tensor) and isinstance(output, Tensor) and torch.is_grad_enabled()):
                return
            if given.requires_grad and not output.requires_grad and output.is_floating_point():
                self._cut.append(f"{name!r} ({type(module).__name__})")

        return look

    def check(self) -> None:
        """Make sure that no layer was found.

        Raises:
            ModelError: gradients do not pass through a layer.
        """
        if self._cut:
            raise ModelError(
                f"no gradient passes through {len(set(self._cut))} layers of the model, for example "
                f"{self._cut[0]}: give another --quantization or --device, or a checkpoint in another format"
            )


def may_change_state(model: nn.Module) -> bool:
    """Tell whether a model's forward pass may change how it computes later.

    Layers with quantised weights do, and the code that a checkpoint brings with it may do anything.
    """
    inner = inner_model(model)
    if getattr(inner, "is_quantized", False) or type(inner).__module__.startswith("transformers_modules"):
        return True
    return any(not parameter.is_floating_point() for parameter in model.parameters())


def answer_something(model: nn.Module, ids: Sequence[int]) -> None:
    """Let a model compute as it does when it answers: without gradients."""
    device = inner_model(model).get_input_embeddings().weight.device
    with torch.no_grad():
        model(input_ids=torch.tensor([list(ids)], device=device), use_cache=False)
