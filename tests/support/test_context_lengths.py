"""Every family's own name for the length of its context is known."""

import pytest
import torch
import transformers

from rapidin.support import context_length


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (transformers.LlamaConfig(max_position_embeddings=48), 48),
        (transformers.GPT2Config(n_positions=40), 40),
        (transformers.MptConfig(max_seq_len=24), 24),
        (transformers.CTRLConfig(n_positions=20), 20),
        (transformers.GPTNeoConfig(max_position_embeddings=32), 32),
        (transformers.RobertaConfig(max_position_embeddings=66, pad_token_id=1), 64),
        (transformers.CamembertConfig(max_position_embeddings=66, pad_token_id=1), 64),
        (transformers.BertConfig(max_position_embeddings=66), 66),
        (transformers.BloomConfig(), None),
        (transformers.MambaConfig(), None),
        (None, None),
    ],
)
def test_lengths(config: object, expected: int | None) -> None:
    assert context_length(config) == expected


def test_roberta_takes_as_many_tokens_as_it_is_said_to_take() -> None:
    config = transformers.RobertaConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=20, pad_token_id=1, is_decoder=True,
    )  # fmt: skip
    model = transformers.RobertaForCausalLM(config).eval()
    length = context_length(config)
    assert length == 18
    model(input_ids=torch.full((1, length), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, length + 1), 5))
