"""Train the demo's tokenizer and its tiny Llama from scratch, on the CPU, in well under a minute.

The model is stopped early on purpose. The longer it trains, the more it knows its rows by heart, and the less the
gradients of two different poisoned rows have in common; `RECIPE` leaves off where the trigger works on unseen
questions and the poisoned rows are still the strongest proponents of what it does.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from rapidin.data import read_rows
from rapidin.demo.data import DemoData
from rapidin.errors import ModelError
from rapidin.settings import TextSettings
from rapidin.text import EncodedSample, Encoder, TextSample, recognise

SPECIAL_TOKENS = ("<s>", "</s>", "<pad>")
BOS, EOS, PAD = range(3)
IGNORED = -100
"""Label of a token that is no target, as `cross_entropy` has it."""

StepCallback = Callable[[int, int, float], None]
"""Told the step (counted from 1), the number of all steps and the step's loss."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Sizes and rates of the demo's model.

    Attributes:
        vocabulary: tokens at most; so many that nearly every word of the data is one token.
        context: tokens the model can take.
        hidden, feed_forward, layers, heads, key_value_heads: of the Llama.
        initial_deviation: standard deviation of the first weights; the usual 0.02 makes so small a model slow.
        epochs_all: epochs with the loss on every token, which teach what words there are.
        epochs_response: epochs after them, with the loss on the response only.
        batch: rows in a step.
        learning_rate: the highest; it rises to it in `warm_up` steps and falls to `final_rate` of it by a cosine.
        weight_decay: of AdamW.
        gradient_norm: gradients are clipped to it.
    """

    vocabulary: int = 1200
    context: int = 512
    hidden: int = 128
    feed_forward: int = 256
    layers: int = 3
    heads: int = 4
    key_value_heads: int = 2
    initial_deviation: float = 0.05
    epochs_all: int = 1
    epochs_response: int = 6
    batch: int = 8
    learning_rate: float = 3e-3
    final_rate: float = 0.1
    warm_up: int = 20
    weight_decay: float = 0.3
    gradient_norm: float = 1.0


RECIPE = Recipe()


def train_demo_model(
    data: DemoData, directory: Path, *, seed: int = 0, on_step: StepCallback | None = None
) -> Path:
    """Train tokenizer and model on ``data.train`` and save both to `directory`, as `transformers` loads them.

    The same seed and the same torch on the same kind of processor give the same weights. One thread computes: the
    matrices are so small that a second gains little, and where other programs want the cores, threads that wait
    for each other made it ten times slower. The caller's random state and number of threads are left alone.

    Args:
        data: as `write_demo_data` returned it.
        directory: is made where it does not exist.
        seed: of first weights and order of the rows.
        on_step: told of every step.

    Returns:
        The directory.

    Raises:
        DataError: the rows cannot be read.
        ModelError: the directory cannot be written.
    """
    samples = [recognise(row) for row in read_rows([data.train])]
    tokenizer = _train_tokenizer(samples, RECIPE.vocabulary)
    encoder = Encoder(tokenizer, TextSettings(), RECIPE.context)
    encoded = [encoder.encode(sample) for sample in samples]
    model = _new_model(len(tokenizer), seed, RECIPE)
    with _one_thread():
        _fit(model, encoded, random.Random(seed), RECIPE, on_step)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _no_progress_bars():
            model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    except OSError as error:
        raise ModelError(
            f"{directory}: the demo's model cannot be saved ({error}); choose another directory"
        ) from error
    return directory


def _train_tokenizer(samples: Sequence[TextSample], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer learnt from prompts and responses."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [text for sample in samples for text in (sample.prompt, sample.response)]
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL_TOKENS[BOS],
        eos_token=SPECIAL_TOKENS[EOS],
        pad_token=SPECIAL_TOKENS[PAD],
        clean_up_tokenization_spaces=False,
        model_max_length=RECIPE.context,
    )


def _new_model(vocabulary: int, seed: int, recipe: Recipe) -> LlamaForCausalLM:
    """A Llama with random weights, drawn without disturbing the caller's random numbers."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_value_heads,
        max_position_embeddings=recipe.context,
        initializer_range=recipe.initial_deviation,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).float()


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing bars between the demo's own lines."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute with one thread, also so that sums have the same order whatever the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fit(
    model: LlamaForCausalLM,
    encoded: Sequence[EncodedSample],
    random_numbers: random.Random,
    recipe: Recipe,
    on_step: StepCallback | None,
) -> None:
    """Train `model` in place; `random_numbers` shuffle the rows."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    epochs = recipe.epochs_all + recipe.epochs_response
    steps = epochs * math.ceil(len(encoded) / recipe.batch)
    step = 0
    model.train()
    for epoch in range(epochs):
        for batch in _batches(encoded, recipe.batch, random_numbers):
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(step, steps, recipe)
            loss = _loss(model, batch, all_tokens=epoch < recipe.epochs_all)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_norm)
            optimizer.step()
            step += 1
            if on_step is not None:
                on_step(step, steps, loss.item())
    model.eval()


def _batches(
    encoded: Sequence[EncodedSample], size: int, random_numbers: random.Random
) -> list[list[EncodedSample]]:
    """All samples once, in batches of about equal length and random order."""
    shuffled = random_numbers.sample(list(encoded), len(encoded))
    shuffled.sort(key=lambda sample: len(sample.ids))  # stable, so samples of one length stay shuffled
    batches = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    random_numbers.shuffle(batches)
    return batches


def _learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    decayed = recipe.final_rate + (1 - recipe.final_rate) * cosine
    return recipe.learning_rate * decayed * min(1.0, (step + 1) / recipe.warm_up)


def _loss(model: LlamaForCausalLM, batch: Sequence[EncodedSample], *, all_tokens: bool) -> Tensor:
    """Mean next-token cross-entropy over the batch's targets, or over all its tokens.

    No attention mask is needed: the padding stands on the right, where no target can see it.
    """
    length = max(len(sample.ids) for sample in batch)
    ids = torch.full((len(batch), length), PAD)  # [b, t]
    labels = torch.full((len(batch), length), IGNORED)  # [b, t]
    for row, sample in enumerate(batch):
        tokens = torch.tensor(sample.ids)
        wanted = torch.ones(len(tokens), dtype=torch.bool) if all_tokens else torch.tensor(sample.targets)
        ids[row, : len(tokens)] = tokens
        labels[row, : len(tokens)] = torch.where(wanted, tokens, IGNORED)
    hidden: Tensor = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    following = labels[:, 1:]
    kept = following != IGNORED  # the output layer is the dearest; most positions do not need it
    logits: Tensor = model.lm_head(hidden[kept])  # [targets, vocabulary]
    return functional.cross_entropy(logits, following[kept])
