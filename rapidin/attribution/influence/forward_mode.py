"""Derivatives of a sample's token losses along a direction, for all tokens in one pass.

*Forward mode*: parameters and activations carry a tangent through the forward pass (dual numbers), so the tangent
of each token's loss is its derivative along the direction. It costs about two forward passes. Attention takes
torch's plain implementation, the only one that has tangents.

*Central differences* are for models with an operation that has no forward mode (4-bit layers, fused kernels). They
take the losses at θ + εv and θ − εv. The rounding error of a difference grows with 1/ε and the error of the
formula with ε². So several ε are tried, and the one is taken whose derivatives add up best to the known derivative
of the sum (`token_values`).

Shape letters: t tokens · g targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from rapidin.attribution.gradients import TargetBatch, TokenSample, call_with, token_objectives
from rapidin.attribution.influence.directions import norm_of
from rapidin.settings import Objective
from rapidin.support import inner_model

STEPS = (1e-3, 1e-4, 1e-2)
"""Steps of central differences, relative to the norm of the traced parameters."""
Tangents = Mapping[str, Tensor]
"""A direction by parameter name; each tensor has the parameter's shape and type."""


def forward_mode(model: nn.Module, sample: TokenSample, tangents: Tangents, objective: Objective) -> Tensor:
    """Compute the derivatives of the target tokens' losses, float64 [g].

    Raises:
        NotImplementedError, RuntimeError: An operation of the model has no forward mode.
    """
    with differentiable_forwards(model), forward_ad.dual_level():
        duals = {
            name: forward_ad.make_dual(model.get_parameter(name), tangent) for name, tangent in tangents.items()
        }
        tangent = forward_ad.unpack_dual(token_losses(model, sample, duals, objective)).tangent
        if tangent is None:  # no parameter with a tangent acts on these losses
            return torch.zeros(sum(sample.targets), dtype=torch.float64)
        derivatives: Tensor = tangent.double().cpu()
        return derivatives


def forward_mode_of_many(
    model: nn.Module, sample: TokenSample, tangents: Tangents, objective: Objective
) -> Tensor:
    """Compute the derivatives along several directions, which share the forward pass itself.

    Args:
        model: the model.
        sample: the sample.
        tangents: the d directions, [d, …] by parameter name.
        objective: quantity of a target token that is differentiated.

    Returns:
        Derivatives of the target tokens' losses along each direction, float64 [d, g].

    Raises:
        NotImplementedError, RuntimeError: An operation of the model has no forward mode, or none for several.
    """
    parameters = {name: model.get_parameter(name).detach() for name in tangents}

    def losses(some: dict[str, Tensor]) -> Tensor:
        return token_losses(model, sample, some, objective)

    def along(direction: dict[str, Tensor]) -> Tensor:
        derivatives: Tensor = torch.func.jvp(losses, (parameters,), (direction,))[1]
        return derivatives

    with differentiable_forwards(model):
        many: Tensor = torch.func.vmap(along)(dict(tangents))
        return many.double().cpu()


def central_difference(
    model: nn.Module, sample: TokenSample, tangents: Tangents, step: float, objective: Objective
) -> Tensor:
    """Compute the derivatives of the target tokens' losses, float64 [g].

    Args:
        model: the model.
        sample: the sample.
        tangents: the direction.
        step: distance that the parameters are moved each way, relative to their own norm; one of `STEPS`.
        objective: quantity of a target token that is differentiated.
    """
    parameters = {name: model.get_parameter(name) for name in tangents}
    length = math.hypot(*map(norm_of, parameters.values()))
    epsilon = step * (length or 1.0) / (math.hypot(*map(norm_of, tangents.values())) or 1.0)
    losses = []
    for signed in (epsilon, -epsilon):
        moved = {name: parameters[name] + signed * tangent for name, tangent in tangents.items()}
        with torch.no_grad():
            losses.append(token_losses(model, sample, moved, objective).double().cpu())
    return (losses[0] - losses[1]) / (2 * epsilon)


def token_losses(
    model: nn.Module, sample: TokenSample, parameters: Mapping[str, Tensor], objective: Objective = "loss"
) -> Tensor:
    """Compute the losses of the target tokens, float32 [g], with some parameters in place of the model's own.

    Args:
        model: the model.
        sample: the sample.
        parameters: parameters by name.
        objective: quantity that stands for the loss.
    """
    device = model.get_input_embeddings().weight.device  # type: ignore[operator]
    batch = TargetBatch.of([sample])
    arguments: dict[str, Any] = {
        "input_ids": batch.ids.to(device),
        "attention_mask": batch.mask.to(device),
        "use_cache": False,
    }
    logits: Tensor = call_with(model, parameters, arguments).logits
    return token_objectives(batch.predicting(logits), batch.targets, objective)


@contextmanager
def differentiable_forwards(model: nn.Module) -> Iterator[None]:
    """Make the model compute with operations that have a forward mode."""
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        _plain_experts(model),
        _padding_without_tangent(model),
    ):
        yield


@contextmanager
def _plain_experts(model: nn.Module) -> Iterator[None]:
    """Let mixtures of experts multiply expert by expert, because grouped products have no forward mode."""
    inner = inner_model(model)
    before = inner.get_experts_implementation() if hasattr(inner, "get_experts_implementation") else None
    if before in (None, "eager"):
        yield
        return
    inner.set_experts_implementation("eager")
    try:
        yield
    finally:
        inner.set_experts_implementation(before)


@contextmanager
def _padding_without_tangent(model: nn.Module) -> Iterator[None]:
    """Give an embedding's row of the padding token no tangent, because looking it up gives it no gradient.

    Backward passes do this by themselves; forward mode does not.
    """

    def without(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        padding = (arguments[0] == module.padding_idx).unsqueeze(-1)
        return torch.where(padding, output.detach(), output)

    handles = [
        module.register_forward_hook(without)
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
