"""Greedy generation: the answer that the model itself gives to a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import GenerationConfig

from rapidin.support import inner_model
from rapidin.text import Tokenizer


@dataclass(frozen=True, slots=True)
class Answer:
    """The text that a model wrote.

    Attributes:
        ids: token ids, with the one that ended the answer if there was one.
        text: text without special tokens.
    """

    ids: tuple[int, ...]
    text: str


def generate(model: nn.Module, tokenizer: Tokenizer, prompt: Sequence[int], max_new_tokens: int) -> Answer:
    """Let the model write an answer that consists of the most probable token at each step.

    The checkpoint's own generation settings (sampling, penalties, minimum lengths) do not apply, except its
    end-of-sequence tokens, of which a chat model has several.

    Args:
        model: a causal language model.
        tokenizer: tokenizer of the model.
        prompt: token ids that the answer follows.
        max_new_tokens: number of tokens at which the answer is cut.
    """
    inner = inner_model(model)
    checkpoint = inner.generation_config
    given = (tokenizer.eos_token_id, *_as_list(checkpoint.eos_token_id))
    ends = {token for token in given if token is not None}
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids = torch.tensor([list(prompt)], device=inner.get_input_embeddings().weight.device)
    # `generate` would take every setting that it is not given from the checkpoint, so these replace its settings.
    inner.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends) or None,
        pad_token_id=padding if padding is not None else 0,
    )
    try:
        # Not in inference mode: what a model keeps from it could not be differentiated later.
        with torch.no_grad():
            output = inner.generate(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        inner.generation_config = checkpoint
    answer = tuple(output[0, ids.shape[1] :].tolist())
    return Answer(answer, str(tokenizer.decode(answer, skip_special_tokens=True)))


def _as_list(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
