"""Tiny random models of many architectures, made in the test; nothing is downloaded."""

from collections.abc import Callable

import peft
import torch
import transformers
from torch import nn

VOCABULARY = 96

COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
DECODER = {
    **COMMON,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = {**DECODER, "num_key_value_heads": 2}


def llama(**changes: object) -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**GROUPED, **changes}))


def gpt2() -> nn.Module:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**COMMON, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    )


def mixtral() -> nn.Module:
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2)
    )


def with_lora(model: nn.Module, targets: list[str]) -> nn.Module:
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
    )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # zero at the start of training, which would leave lora_A without gradient
            nn.init.normal_(parameter, std=0.1)
    return adapted


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "llama-tied": lambda: llama(tie_word_embeddings=True),
    "llama-untied": lambda: llama(tie_word_embeddings=False),
    "gpt2": gpt2,
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**GROUPED)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**GROUPED, head_dim=8)),
    "gpt-neox": lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**DECODER)),
    "gemma": lambda: transformers.GemmaForCausalLM(transformers.GemmaConfig(**GROUPED, head_dim=8)),
    "gemma3": lambda: transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**GROUPED, head_dim=8)),
    "opt": lambda: transformers.OPTForCausalLM(
        transformers.OPTConfig(
            **COMMON,
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            word_embed_proj_dim=32,
        )
    ),
    "phi": lambda: transformers.PhiForCausalLM(transformers.PhiConfig(**DECODER)),
    "mixtral": lambda: mixtral(),
    "roberta": lambda: transformers.RobertaForCausalLM(
        transformers.RobertaConfig(**{**DECODER, "pad_token_id": 2}, is_decoder=True)
    ),
    "ctrl": lambda: transformers.CTRLLMHeadModel(
        transformers.CTRLConfig(vocab_size=VOCABULARY, n_embd=32, dff=48, n_layer=2, n_head=4, n_positions=64)
    ),
    "vera-llama": lambda: peft.get_peft_model(
        llama(num_key_value_heads=4), peft.VeraConfig(r=4, target_modules=["q_proj", "v_proj"])
    ),
    "dora-llama": lambda: peft.get_peft_model(
        llama(), peft.LoraConfig(r=4, target_modules=["q_proj"], use_dora=True, init_lora_weights=False)
    ),
    "lora-experts": lambda: peft.get_peft_model(
        mixtral(),
        peft.LoraConfig(
            r=4,
            target_modules=["q_proj"],
            target_parameters=["experts.gate_up_proj", "experts.down_proj"],
            init_lora_weights=False,
        ),
    ),
    "lora-llama": lambda: with_lora(llama(), ["q_proj", "v_proj", "down_proj"]),
    "lora-gpt2": lambda: with_lora(gpt2(), ["c_attn", "c_proj"]),
}

ONE_BY_ONE = {"mixtral", "opt", "ctrl", "roberta", "vera-llama", "dora-llama", "lora-experts"}
"""Architectures whose parameters no hook serves, or not rightly."""


def make(architecture: str) -> nn.Module:
    torch.manual_seed(1)
    model = ARCHITECTURES[architecture]()
    for parameter in model.parameters():
        # Norms start at exactly one and biases at zero, where mistakes could hide.
        if parameter.dim() == 1:
            with torch.no_grad():
                parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()
