"""Hooks that catch the factors of every traced parameter's per-sample gradient during one backward pass.

A forward hook keeps a module's input, a hook on its output's gradient delivers δ; together they are the
module's contribution. When every use of a parameter has reported, its gradient is handed on and forgotten, so
at no time is more than a few layers' worth of factors held, and never anything of size batch × parameters.

Only parameters whose modules are known to treat dimension 0 as samples can be captured; `Capture.unsupported`
says which cannot, and `NotBatchedError` is raised during forward where a module's input turns out to be
rearranged (tokens of a mixture of experts, for example). The engine then goes sample by sample instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from rapidin.attribution.gradients.contributions import (
    Contribution,
    DenseGradient,
    OuterProducts,
    ParameterGradient,
    ScatteredRows,
)

Consumer = Callable[[ParameterGradient], None]
"""Function that takes one parameter tensor's gradients for every sample of a batch."""


class NotBatchedError(Exception):
    """A module's tensors do not have the samples in dimension 0; internal, never reaches a user."""


@dataclass(slots=True)
class _Running:
    """State of one forward and backward pass."""

    batch: int
    consume: Consumer
    in_forward: bool = True
    waiting: dict[int, int] = field(default_factory=dict)
    collected: dict[int, list[Contribution]] = field(default_factory=dict)


class Capture:
    """Hooks on the modules of a model that own traced parameters.

    Args:
        model: the model; its modules get forward hooks until `close`.
        names: of the traced parameters, in the order of the flattened gradient.

    Attributes:
        unsupported: traced parameters that no hook can serve; where there are any, nothing is hooked.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        parameters = dict(model.named_parameters())
        self._positions = {id(parameters[name]): position for position, name in enumerate(names)}
        self._shapes = [tuple(parameters[name].shape) for name in names]
        self._running: _Running | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        owners = [module for module in model.modules() if self._own_positions(module)]
        self._scales = {module: _embedding_scale(module) for module in owners}
        served: set[int] = set()
        spoiled: set[int] = set()  # one unsupported use spoils a parameter, whatever its other uses are
        for module in owners:
            own = self._own_positions(module)
            supported = self._scales[module] is not None or _is_supported(module, own)
            (served if supported else spoiled).update(own.values())
        self.unsupported = [
            name for position, name in enumerate(names) if position not in served or position in spoiled
        ]
        if not self.unsupported:
            self._handles = [
                module.register_forward_hook(self._after_forward, with_kwargs=True) for module in owners
            ]

    def _own_positions(self, module: nn.Module) -> dict[str, int]:
        return {
            name: self._positions[id(parameter)]
            for name, parameter in module._parameters.items()
            if parameter is not None and id(parameter) in self._positions
        }

    def start(self, batch: int, consume: Consumer) -> None:
        """Begin to capture one forward and backward pass over `batch` samples."""
        self._running = _Running(batch, consume)

    def finish(self) -> None:
        """Hand on what is left: parameters some of whose uses had no part in the loss."""
        running, self._running = self._running, None
        if running is not None:
            for position in list(running.collected):
                self._deliver(running, position)

    def abort(self) -> None:
        """Forget the pass that was begun."""
        self._running = None

    def close(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _after_forward(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        running = self._running
        if running is None or not running.in_forward or not torch.is_grad_enabled():
            return
        given = [*args, *kwargs.values()]
        inputs = given[0] if len(given) == 1 else None
        if not isinstance(inputs, Tensor) or not isinstance(output, Tensor):
            raise NotBatchedError(f"{type(module).__name__} with other than one tensor in and out")
        _check_batched(module, running.batch, inputs, output)
        own = self._own_positions(module)
        for position in own.values():
            running.waiting[position] = running.waiting.get(position, 0) + 1
        if not output.requires_grad:
            # The first traced module on the way: the backward pass has to reach its output and no further.
            output.requires_grad_()
        kept = inputs.detach()

        def after_backward(delta: Tensor) -> None:
            running.in_forward = False  # `_vector_gradient` calls modules again, which is not to be captured
            # Spread over several devices, a module's input may still be on the one before.
            local = kept.to(delta.device)
            for name, position in own.items():
                contribution = _contribution(
                    module, name, running.batch, local, delta.detach(), self._scales[module]
                )
                running.collected.setdefault(position, []).append(contribution)
                running.waiting[position] -= 1
                if running.waiting[position] == 0:
                    self._deliver(running, position)

        output.register_hook(after_backward)

    def _deliver(self, running: _Running, position: int) -> None:
        contributions = running.collected.pop(position)
        running.consume(ParameterGradient(position, running.batch, self._shapes[position], contributions))


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward


def _embedding_scale(module: nn.Module) -> float | None:
    """Factor s of an embedding whose output is s · weight[ids] (s ≠ 1 in Gemma); None for anything else."""
    if not isinstance(module, nn.Embedding) or module.max_norm is not None or module.scale_grad_by_freq:
        return None
    if type(module).forward is nn.Embedding.forward:
        return 1.0
    scale = getattr(module, "embed_scale", getattr(module, "scalar_embed_scale", None))
    if not isinstance(scale, (float, Tensor)):
        return None
    with torch.no_grad():
        ids = torch.arange(min(8, module.num_embeddings), device=module.weight.device).unsqueeze(0)
        try:
            output = module(ids)
        except (TypeError, ValueError, RuntimeError):  # its forward takes something else than ids
            return None
        expected = module.weight[ids] * torch.as_tensor(scale, device=ids.device).to(module.weight.dtype)
        return float(scale) if torch.equal(output, expected) else None


def _is_transposed(module: nn.Module) -> bool:
    """Whether this is GPT-2's linear layer, whose weight is [inputs, outputs]."""
    # Where there is such a layer, its module is loaded; to load it here would cost every search half a second.
    utilities = sys.modules.get("transformers.pytorch_utils")
    return utilities is not None and isinstance(module, utilities.Conv1D)


def _is_supported(module: nn.Module, own: dict[str, int]) -> bool:
    if _is_linear(module) or _is_transposed(module):
        return True
    if type(module).forward is nn.Module.forward:  # a mere container of parameters is never called
        return False
    # Anything else whose parameters are all vectors (the norms of every architecture) is differentiated again
    # sample by sample in `_vector_gradient`; it must hold no further modules, for those may have hooks.
    return not list(module.children()) and all(module._parameters[name].dim() <= 1 for name in own)  # type: ignore[union-attr]


def _check_batched(module: nn.Module, batch: int, inputs: Tensor, output: Tensor) -> None:
    if batch == 1 and (_is_linear(module) or _is_transposed(module)):
        return  # whatever the arrangement, it all belongs to the one sample
    least = 2 if isinstance(module, nn.Embedding) else 3
    if inputs.dim() < least or inputs.shape[0] != batch or output.shape[0] != batch:
        raise NotBatchedError(f"{type(module).__name__} with an input of shape {tuple(inputs.shape)}")


def _contribution(
    module: nn.Module, name: str, batch: int, inputs: Tensor, delta: Tensor, scale: float | None
) -> Contribution:
    """Turn what a module saw into its contribution to the gradient of its parameter `name`."""
    if scale is not None:
        # Autograd gives the row of the padding token no gradient, wherever the token stands.
        padding = cast(nn.Embedding, module).padding_idx
        index = inputs if padding is None else inputs.masked_fill(inputs == padding, -1)
        delta = delta if scale == 1.0 else delta * scale
        return ScatteredRows(index.reshape(batch, -1), delta.reshape(batch, -1, delta.shape[-1]))
    if _is_linear(module) or _is_transposed(module):
        delta = delta.reshape(batch, -1, delta.shape[-1])
        if name == "bias":
            return DenseGradient(delta.sum(dim=1, keepdim=True, dtype=torch.float32))
        inputs = inputs.reshape(batch, -1, inputs.shape[-1])
        left, right = (inputs, delta) if _is_transposed(module) else (delta, inputs)
        return OuterProducts(left, right)
    return DenseGradient(_vector_gradient(module, name, inputs, delta))


def _vector_gradient(module: nn.Module, name: str, inputs: Tensor, delta: Tensor) -> Tensor:
    """Differentiate a small module once more, per sample, with respect to one of its vectors: [b, 1, c]."""
    # All of it in float32: the gradient is summed over the tokens without the model's rounding or overflow.
    parameters = {key: value.detach().float() for key, value in module.named_parameters(recurse=False)}

    def output_of(vector: Tensor, sample: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(module, {**parameters, name: vector}, (sample.unsqueeze(0),))
        return output

    def gradient_of(sample: Tensor, sample_delta: Tensor) -> Tensor:
        pulled = torch.func.vjp(lambda vector: output_of(vector, sample), parameters[name])
        gradient: Tensor = pulled[1](sample_delta.unsqueeze(0).to(pulled[0].dtype))[0]
        return gradient

    gradient: Tensor = torch.func.vmap(gradient_of)(inputs.float(), delta)
    return gradient.float().reshape(inputs.shape[0], 1, -1)
