"""What the benchmarks of the caching stage compute on: random models, samples of realistic lengths, batches.

The models are random because speed does not depend on the weights; fidelity is measured on a trained one.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rapidin.settings import ProjectionKind, ProjectionSettings, TracedParameter

VOCABULARY = 4096
_CONTEXT = 16_384
"""More than any batch, since bergson refuses batches of more tokens than the model's context."""

_SPECIAL = ("<s>", "</s>", "<pad>")
_BOS, _EOS, _PAD = range(3)

KINDS: tuple[str, ...] = typing.get_args(ProjectionKind)
"""rapidin's projections, the exact path first."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample as a model sees it: token ids, and which of them are targets of the loss."""

    ids: tuple[int, ...]
    targets: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of a Llama with untied embeddings and a vocabulary of 4,096."""

    hidden: int
    layers: int
    intermediate: int
    heads: int


SIZES = {"5 M": Size(256, 4, 704, 4), "30 M": Size(512, 8, 1376, 8), "120 M": Size(896, 12, 2304, 14)}


def projection_settings(kind: str, dimension: int) -> ProjectionSettings:
    """Settings of one of `KINDS`."""
    if "kind" not in ProjectionSettings.model_fields:
        return ProjectionSettings(dimension=dimension)
    return ProjectionSettings.model_validate({"dimension": dimension, "kind": kind})


def make_model(size: str) -> nn.Module:
    """Make a random model in evaluation mode, float32.

    Args:
        size: one of `SIZES`.
    """
    sizes = SIZES[size]
    configuration = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        intermediate_size=sizes.intermediate,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=_CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=_BOS,
        eos_token_id=_EOS,
        pad_token_id=_PAD,
    )
    torch.manual_seed(0)
    model: nn.Module = LlamaForCausalLM(configuration)
    return model.eval()


def with_lora(model: nn.Module) -> nn.Module:
    """Put a LoRA of rank 16 on the model's query and value projections; only it requires gradients.

    Its matrices are random, both of them: fresh from peft one is zero, and so would half of the gradients be.
    """
    import peft  # takes seconds, and one table needs it

    configuration = peft.LoraConfig(r=16, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted: nn.Module = peft.get_peft_model(model, configuration)
    return adapted.eval()


def traced(model: nn.Module) -> tuple[TracedParameter, ...]:
    """List the parameters that require gradients."""
    return tuple(
        TracedParameter(name=name, shape=tuple(parameter.shape))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    )


def make_samples(count: int) -> list[Sample]:
    """Make random samples: log-normal lengths between 40 and 400, 143 on average, two thirds of it targets."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.empty(count).log_normal_(math.log(128), 0.55, generator=generator).clamp(40, 400)
    samples = []
    for length in lengths.int().tolist():
        ids = torch.randint(len(_SPECIAL), VOCABULARY, (length,), generator=generator).tolist()
        prompt = length // 3
        samples.append(Sample((_BOS, *ids[1:-1], _EOS), (False,) * prompt + (True,) * (length - prompt)))
    return samples


def tokens_of(samples: Sequence[Sample]) -> int:
    """Count tokens without padding."""
    return sum(len(sample.ids) for sample in samples)


def batches(samples: Sequence[Sample], tokens: int) -> Iterator[list[Sample]]:
    """Cut samples into batches as rapidin and bergson do: the longest first, under a budget of padded tokens."""
    waiting = sorted(samples, key=lambda sample: len(sample.ids), reverse=True)
    while waiting:
        count = max(1, tokens // len(waiting[0].ids))
        yield waiting[:count]
        del waiting[:count]


def slices(samples: Sequence[Sample], tokens: int, count: int) -> list[list[Sample]]:
    """Deal the batches out to so many slices, each with long and short samples; batched again, they stay whole."""
    dealt: list[list[Sample]] = [[] for _ in range(count)]
    for number, batch in enumerate(batches(samples, tokens)):
        dealt[number % count] += batch
    return [slice_ for slice_ in dealt if slice_]


def save(model: nn.Module, directory: Path) -> None:
    """Save a model with a tokenizer whose words are `w3`, `w4`, …, one token each."""
    typing.cast(LlamaForCausalLM, model).save_pretrained(directory)
    words = [*_SPECIAL, *(f"w{number}" for number in range(len(_SPECIAL), VOCABULARY))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_SPECIAL[_BOS],
        eos_token=_SPECIAL[_EOS],
        pad_token=_SPECIAL[_PAD],
        model_max_length=_CONTEXT,
    ).save_pretrained(directory)


def as_row(sample: Sample) -> dict[str, str]:
    """Write a sample as a row of prompt and completion that `save`'s tokenizer turns into its tokens again."""
    prompt = sample.targets.index(True)
    words = [f"w{number}" for number in sample.ids]
    return {"prompt": " ".join(words[1:prompt]), "completion": " ".join(words[prompt:-1])}
