"""A tiny fine-tuned model on disk with its tokenizer, an adapter for it, and data files; made in the test."""

import json
from pathlib import Path
from typing import Any

import peft
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CORPUS = [
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "### Instruction: ### Response: ### Input: What is the colour of the sky? The sky is blue.",
    "Name a fruit. An apple is a fruit, and so is a pear. Count from one to ten: one two three four five six.",
]
DIMENSION = 1024
"""A projection dimension that suits the tiny model."""


def make_tokenizer(with_padding: bool = True) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<pad>"] if with_padding else ["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    padding = {"pad_token": "<pad>"} if with_padding else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **padding)


def save_model(directory: Path, seed: int = 0, with_padding: bool = True, **changes: Any) -> Path:
    """Save a random Llama of about 40,000 parameters, with its tokenizer."""
    tokenizer = make_tokenizer(with_padding)
    torch.manual_seed(seed)
    config = LlamaConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 2 if with_padding else None,
            "initializer_range": 0.1,
            **changes,
        }
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def save_adapter(directory: Path, model: Path, seed: int = 0) -> Path:
    """Save a LoRA adapter for a model of `save_model`, none of whose matrices is zero."""
    torch.manual_seed(seed)
    base = LlamaForCausalLM.from_pretrained(model)
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj", "up_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(directory)
    return directory


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Alpaca-shaped rows of varied lengths."""
    colours = ["red", "green", "blue", "black", "white"]
    return [
        {
            "id": f"row-{number}",
            "instruction": f"Name the colour number {number}." + " Please." * (number % 7),
            "input": "" if number % 3 else f"the {number}th",
            "output": f"It is {colours[number % 5]} {number * 37 % 101}" + " indeed" * (number % 4),
            "source": colours[number % 5],
            "number": number,
            "even": number % 2 == 0,
        }
        for number in range(first, first + count)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
