"""Trainings of tiny models with their checkpoints on disk, as a Trainer leaves them; made in the test."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from tests import worlds

RATES = (3e-4, 1e-4)
"""Learning rates at the two checkpoints of a run."""


@dataclass(frozen=True)
class Run:
    """A training of a model.

    Attributes:
        model: directory of the model that was fine-tuned, or of the base under an adapter.
        adapter: directory of the final adapter; None for a full fine-tune.
        checkpoints: directories of the checkpoints.
    """

    model: Path
    adapter: Path | None
    checkpoints: tuple[Path, Path]

    @property
    def settings(self) -> dict[str, object]:
        """Settings of an ingest."""
        adapter = None if self.adapter is None else str(self.adapter)
        return {"model": str(self.model), "adapter": adapter, "checkpoints": list(self.checkpoints)}

    def alone(self, number: int) -> dict[str, object]:
        """Settings of an ingest with one checkpoint as the model."""
        place = str(self.checkpoints[number])
        if self.adapter is None:
            return {"model": place}
        return {"model": str(self.model), "adapter": place}


def save_gpt2(directory: Path) -> Path:
    """Save a random GPT-2, whose head is tied to its embeddings, with the tokenizer of the other tiny models."""
    tokenizer = worlds.make_tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.1
    )
    GPT2LMHeadModel(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def save_state(checkpoint: Path, step: int, rate: float) -> None:
    """Write the state of a Trainer at a step; the rate was logged a little before and long before."""
    log = [
        {"step": 1, "learning_rate": 1.0, "loss": 3.0},
        {"step": step - 1, "learning_rate": rate},
        {"step": step},
    ]
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": log}))


def full_run(directory: Path, model: Path) -> Run:
    """Save two checkpoints of a full fine-tune: the model with noise."""
    places = []
    for number, rate in enumerate(RATES):
        module = AutoModelForCausalLM.from_pretrained(model)
        torch.manual_seed(10 + number)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        places.append(directory / f"checkpoint-{100 * (number + 1)}")
        module.save_pretrained(places[-1])
        worlds.make_tokenizer().save_pretrained(places[-1])
        save_state(places[-1], 100 * (number + 1), rate)
        (places[-1] / "training_args.bin").write_bytes(b"not a tensor")
    return Run(model, None, (places[0], places[1]))


def lora_run(directory: Path, model: Path, targets: list[str]) -> Run:
    """Save two checkpoints and the end of the training of an adapter."""
    places = []
    for number, name in enumerate(("checkpoint-100", "checkpoint-200", "final")):
        torch.manual_seed(20 + number)
        adapted = peft.get_peft_model(
            AutoModelForCausalLM.from_pretrained(model), peft.LoraConfig(r=8, target_modules=targets)
        )
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.1)
        places.append(directory / name)
        adapted.save_pretrained(places[-1])
        if name != "final":
            save_state(places[-1], 100 * (number + 1), RATES[number])
    return Run(model, places[2], (places[0], places[1]))


RUNS = {
    "full-llama": lambda place: full_run(place, worlds.save_model(place / "model")),
    "full-gpt2": lambda place: full_run(place, save_gpt2(place / "model")),
    "lora-llama": lambda place: lora_run(
        place, worlds.save_model(place / "model"), ["q_proj", "v_proj", "up_proj"]
    ),
    "lora-gpt2": lambda place: lora_run(place, save_gpt2(place / "model"), ["c_attn", "c_fc"]),
}
