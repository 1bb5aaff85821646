"""Hooks that catch the factors of every traced parameter's per-sample gradient during one backward pass.

A forward hook keeps a module's input x [b, t, …], and a hook on its output catches δ, the gradient of the loss
with respect to the output. Together they are the module's contribution. When every use of a parameter has
reported, its gradient is handed to the consumer and forgotten. So the factors of a few layers are held at a time,
and never anything of size batch × parameters.

A parameter can be captured only if its modules are known to treat dimension 0 as samples. `Capture.unsupported`
lists those that cannot. If a module's input turns out to be rearranged during the forward pass (as the tokens of a
mixture of experts are), `NotBatchedError` is raised. In both cases the engine computes sample by sample instead.

Shape letters: b batch · t tokens · c length of a vector parameter.
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
    """A module's tensors do not have the samples in dimension 0; this error never reaches a user."""


@dataclass(slots=True)
class _Running:
    """State of one forward and backward pass.

    Attributes:
        batch: number of samples b.
        consume: function that takes complete gradients.
        in_forward: whether the forward pass is still going on.
        waiting: position of a parameter → number of its uses whose δ is still to come.
        collected: position of a parameter → contributions of the uses that have reported.
    """

    batch: int
    consume: Consumer
    in_forward: bool = True
    waiting: dict[int, int] = field(default_factory=dict)
    collected: dict[int, list[Contribution]] = field(default_factory=dict)


class Capture:
    """Hooks on the modules of a model that own traced parameters.

    Args:
        model: model whose modules get forward hooks until `close`.
        names: names of the traced parameters, in the order of the flattened gradient.

    Attributes:
        unsupported: names of the traced parameters that hooks cannot serve; if there are any, nothing is hooked.
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
        spoiled: set[int] = set()  # one unsupported use is enough to rule a parameter out
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
        """Find the traced parameters that a module owns: name in the module → position in the gradient."""
        return {
            name: self._positions[id(parameter)]
            for name, parameter in module._parameters.items()
            if parameter is not None and id(parameter) in self._positions
        }

    def start(self, batch: int, consume: Consumer) -> None:
        """Begin to capture one forward and backward pass.

        Args:
            batch: number of samples in the pass.
            consume: function that is called with every complete gradient.
        """
        self._running = _Running(batch, consume)

    def finish(self) -> None:
        """Hand over the gradients that still wait because some uses of their parameters did not reach the loss."""
        running, self._running = self._running, None
        if running is not None:
            for position in list(running.collected):
                self._deliver(running, position)

    def abort(self) -> None:
        """Forget the pass that was begun, without handing anything over."""
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
            raise NotBatchedError(f"{type(module).__name__} does not take one tensor and return one")
        _check_batched(module, running.batch, inputs, output)
        own = self._own_positions(module)
        for position in own.values():
            running.waiting[position] = running.waiting.get(position, 0) + 1
        if not output.requires_grad:
            # This is the first traced module that data reach; the backward pass must come this far, and no
            # further.
            output.requires_grad_()
        kept = inputs.detach()

        def after_backward(delta: Tensor) -> None:
            running.in_forward = False  # `_vector_gradient` calls modules again; those calls must not be captured
            # In a model spread over several devices, the input may still be on the device of the previous layer.
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
    """Find the factor s of an embedding whose output is s · weight[ids] (s ≠ 1 in Gemma).

    The result is None if the module is not such an embedding.
    """
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
        except (TypeError, ValueError, RuntimeError):  # its forward pass does not take ids
            return None
        expected = module.weight[ids] * torch.as_tensor(scale, device=ids.device).to(module.weight.dtype)
        return float(scale) if torch.equal(output, expected) else None


def _is_transposed(module: nn.Module) -> bool:
    """Tell whether this is GPT-2's linear layer, whose weight is [inputs, outputs]."""
    # If the model has such a layer, this module is loaded already. Importing it costs half a second, which
    # searches with other models should not pay.
    utilities = sys.modules.get("transformers.pytorch_utils")
    return utilities is not None and isinstance(module, utilities.Conv1D)


def _is_supported(module: nn.Module, own: dict[str, int]) -> bool:
    """Tell whether hooks can compute the gradients of a module's own traced parameters."""
    if _is_linear(module) or _is_transposed(module):
        return True
    if type(module).forward is nn.Module.forward:  # a container of parameters is never called, so no hook runs
        return False
    # `_vector_gradient` can differentiate any other module whose parameters are all vectors, such as the norm
    # layers of every architecture. The module must have no submodules, because those may have hooks.
    return not list(module.children()) and all(module._parameters[name].dim() <= 1 for name in own)  # type: ignore[union-attr]


def _check_batched(module: nn.Module, batch: int, inputs: Tensor, output: Tensor) -> None:
    """Raise `NotBatchedError` unless dimension 0 of a module's input and output can be the samples."""
    if batch == 1 and (_is_linear(module) or _is_transposed(module)):
        return  # everything belongs to the one sample, in whatever order it is
    least = 2 if isinstance(module, nn.Embedding) else 3
    if inputs.dim() < least or inputs.shape[0] != batch or output.shape[0] != batch:
        raise NotBatchedError(f"{type(module).__name__} has an input of shape {tuple(inputs.shape)}")


def _contribution(
    module: nn.Module, name: str, batch: int, inputs: Tensor, delta: Tensor, scale: float | None
) -> Contribution:
    """Make a module's contribution to the per-sample gradient of its parameter `name`.

    Args:
        module: module that owns the parameter.
        name: name of the parameter in the module.
        batch: number of samples b.
        inputs: input of the module, [b, t, …]; token ids [b, t] for an embedding.
        delta: gradient of the loss with respect to the module's output, [b, t, …].
        scale: factor of an embedding's output, from `_embedding_scale`; None for any other module.
    """
    if scale is not None:
        # Autograd gives no gradient to the embedding of the padding token, so neither does this.
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
    """Differentiate a small module again, sample by sample, with respect to one of its vectors.

    Returns:
        Gradients, float32 [b, 1, c].
    """
    # Everything is in float32, so that the sum over the tokens neither rounds like the model nor overflows.
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
