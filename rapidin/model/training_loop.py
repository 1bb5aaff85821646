"""The training loop of small models: AdamW, a warm-up and a cosine, rows in batches of about equal length.

The demo trains its model with this loop, and ``rapidin evaluate lds`` trains the models that measure whether
influences are right. The caller gives a function that computes a model's loss, because the quickest way to it
depends on the model.

Shape letters: g target tokens · v vocabulary.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from rapidin.attribution import TargetBatch, TokenSample

Samples = TypeVar("Samples", bound=TokenSample)
StepCallback = Callable[[int, int, float], None]
"""Function that is called with the number of a step (from 1), the number of all steps and the step's loss."""
Loss = Callable[[Any, Sequence[Any], bool], Tensor]
"""Function that gives a model's mean loss on a batch, over all its tokens if the last argument is true."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a model is trained.

    Attributes:
        epochs_all: number of epochs with the loss on every token, in which the model learns the words.
        epochs_response: number of epochs that follow, with the loss on the targets only.
        batch: number of rows in a step.
        learning_rate: highest learning rate.
        final_rate: share of the highest learning rate that the rate falls to, along a cosine.
        warm_up: number of steps in which the rate rises to the highest.
        weight_decay: weight decay of AdamW.
        gradient_norm: norm that gradients are clipped to.
    """

    epochs_all: int = 1
    epochs_response: int = 6
    batch: int = 8
    learning_rate: float = 3e-3
    final_rate: float = 0.1
    warm_up: int = 20
    weight_decay: float = 0.3
    gradient_norm: float = 1.0


def fit(
    model: nn.Module,
    samples: Sequence[TokenSample],
    random_numbers: random.Random,
    schedule: Schedule,
    loss_of: Loss,
    on_step: StepCallback | None = None,
) -> None:
    """Train a model in place and leave it in evaluation mode.

    Args:
        model: the model; all its trainable parameters are trained.
        samples: the rows.
        random_numbers: random numbers that shuffle the rows.
        schedule: how the model is trained.
        loss_of: function that gives the model's loss, for example `batch_loss`.
        on_step: function that is called after every step.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=schedule.weight_decay
    )
    epochs = schedule.epochs_all + schedule.epochs_response
    steps = epochs * math.ceil(len(samples) / schedule.batch)
    step = 0
    model.train()
    for epoch in range(epochs):
        for batch in batches(samples, schedule.batch, random_numbers):
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(step, steps, schedule)
            loss = loss_of(model, batch, epoch < schedule.epochs_all)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, schedule.gradient_norm)
            optimizer.step()
            step += 1
            if on_step is not None:
                on_step(step, steps, loss.item())
    model.eval()


def batches(samples: Sequence[Samples], size: int, random_numbers: random.Random) -> list[list[Samples]]:
    """Put all samples into batches of about equal length, in random order; each sample is in one batch."""
    shuffled = random_numbers.sample(list(samples), len(samples))
    shuffled.sort(key=lambda sample: len(sample.ids))  # stable, so samples of one length stay shuffled
    found = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    random_numbers.shuffle(found)
    return found


def batch_loss(model: nn.Module, samples: Sequence[TokenSample], all_tokens: bool) -> Tensor:
    """Compute the mean next-token cross-entropy of any causal model of transformers over a batch's targets.

    Args:
        model: the model.
        samples: the samples of the batch.
        all_tokens: whether every token but the first is a target, whatever the samples say.
    """
    batch = TargetBatch.of(samples, all_tokens)
    device = model.get_input_embeddings().weight.device  # type: ignore[operator]
    logits: Tensor = model(
        input_ids=batch.ids.to(device), attention_mask=batch.mask.to(device), use_cache=False
    ).logits
    return mean_loss(batch.predicting(logits), batch)


def mean_loss(logits: Tensor, batch: TargetBatch) -> Tensor:
    """Compute the mean loss over all targets of a batch, given the logits [g, v] that predict them.

    torch takes the mean, because the demo's model depends on the order in which the losses are added up.
    """
    return functional.cross_entropy(logits.float(), batch.targets.to(logits.device))


def _learning_rate(step: int, steps: int, schedule: Schedule) -> float:
    """Compute the learning rate of a step, counted from 0, among all `steps`."""
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    decayed = schedule.final_rate + (1 - schedule.final_rate) * cosine
    return schedule.learning_rate * decayed * min(1.0, (step + 1) / schedule.warm_up)
