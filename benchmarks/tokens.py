"""Time of token-wise influence beside one backward pass per token, and how well the two agree.

    python -m benchmarks.tokens
    python -m benchmarks.tokens --quick

The obvious way, and the authors' before they removed it, is a backward pass for every token of a sample and an
inner product of its gradient with the query's. rapidin takes one pass in forward mode for all tokens, and before
it a forward and backward pass that gives the sample's exact influence and the norms of its layers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks import tables
from benchmarks.fresh import use_threads
from benchmarks.workload import VOCABULARY, Sample, make_model, traced
from rapidin.attribution.influence import Explainer
from rapidin.attribution.influence.directions import Direction
from rapidin.attribution.rapidgrads import RapidGradEngine, TokenBudget
from rapidin.settings.store_settings import ProjectionSettings

_ROUNDS = 3
_CHECKED = 6
"""Tokens whose values are compared with backward passes of their own."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tokens",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=int, default=2, help="of everything (default: %(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="a small model: does it run? Its figures mean nothing"
    )
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    print(tables.machine(arguments.threads), flush=True)
    model = make_model("5 M" if arguments.quick else "30 M")
    parameters = traced(model)
    tables.heading(
        f"{sum(value.numel() for value in model.parameters()):,} parameters, float32; median of {_ROUNDS} rounds",
        *("tokens", "forward and backward, s", "exact influence, s", "tokens' influences, s"),
        *("per token : rapidin", "the same, without the exact influence", "largest error"),
    )
    with RapidGradEngine(model, parameters, ProjectionSettings(dimension=65536, kind="factored")) as engine:
        explainer = Explainer(model, engine, TokenBudget.for_device(None, engine.device, 65536))
        direction = explainer.direction(_random(64, seed=0))
        for length in (64, 128, 256):
            _row(model, explainer, direction, _random(length, seed=length))


def _row(model: nn.Module, explainer: Explainer, direction: Direction, sample: Sample) -> None:
    (influence,) = explainer.influences([sample], direction)
    if influence is None:
        raise SystemExit("the gradient is not finite")
    values = np.array(explainer.token_influences(sample, direction, influence))
    times = {
        "plain": lambda: _backward(model, sample),
        "influence": lambda: explainer.influences([sample], direction),
        "tokens": lambda: explainer.token_influences(sample, direction, influence),
    }
    seconds: dict[str, list[float]] = {name: [] for name in times}
    for _ in range(_ROUNDS):
        for name, run in times.items():
            seconds[name].append(_seconds(run))
    plain, exact, tokens = (float(np.median(seconds[name])) for name in times)
    count = len(values)
    error = np.abs(_by_backward(model, direction, influence.weights, sample) - values[:_CHECKED]).max()
    tables.row(
        *(len(sample.ids), f"{plain:.3f}", f"{exact:.3f}", f"{tokens:.3f}"),
        *(f"{count * plain / (exact + tokens):.0f}", f"{count * plain / tokens:.0f}"),
        f"{error / np.abs(values).max():.1e}",
    )


def _backward(model: nn.Module, sample: Sample, place: int | None = None) -> None:
    """Forward and backward, for all parameters, of the mean loss or of one token's."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    ids = torch.tensor([sample.ids])
    logits = model(input_ids=ids, use_cache=False).logits[0]
    places = range(1, len(sample.ids)) if place is None else [place]
    predicted = logits[[place - 1 for place in places]]
    nn.functional.cross_entropy(predicted, ids[0, list(places)]).backward()
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def _by_backward(model: nn.Module, direction: Direction, weights: torch.Tensor, sample: Sample) -> np.ndarray:
    """The first tokens' influences by a backward pass for each."""
    values = []
    for place in range(1, _CHECKED + 1):
        _backward(model, sample, place)
        total = 0.0
        for parameter, tensor, weight in zip(model.parameters(), direction.tensors, weights.tolist(), strict=True):
            if tensor is not None and parameter.grad is not None:
                total += weight * float((parameter.grad.double().flatten() * tensor.double().flatten()).sum())
        values.append(total / sum(sample.targets))
    for parameter in model.parameters():
        parameter.grad = None
    return np.array(values)


def _random(length: int, seed: int) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
    return Sample(tuple(ids), tuple(place > 0 for place in range(length)))


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
