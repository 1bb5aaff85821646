"""Greedy generation: what the model itself answers to a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rapidin.model.loading import Tokenizer


def generate(
    model: nn.Module, tokenizer: Tokenizer, prompt: Sequence[int], max_new_tokens: int
) -> tuple[str, bool]:
    """Let the model answer, one most probable token after the other.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer; its end-of-sequence token ends the answer.
        prompt: token ids the answer follows.
        max_new_tokens: length at which the answer is cut.

    Returns:
        The answer's text, without special tokens, empty where the model ends at once; and whether the model
        ended it itself.
    """
    ids = torch.tensor([list(prompt)], device=model.get_input_embeddings().weight.device)  # type: ignore[operator]
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with torch.inference_mode():
        output = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=padding if padding is not None else 0,
            eos_token_id=tokenizer.eos_token_id,
        )
    answer = output[0, ids.shape[1] :]
    text: str = tokenizer.decode(answer, skip_special_tokens=True)
    return text, len(answer) < max_new_tokens
