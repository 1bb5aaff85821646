"""Training of the demo's tokenizer and tiny Llama from scratch, on the CPU, in well under a minute.

The training stops early on purpose. The longer the model trains, the more it knows its rows by heart, and the less
the gradients of two different poisoned rows have in common. `RECIPE` stops when the trigger works on unseen
questions and the poisoned rows are still the strongest proponents of its answers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from rapidin.attribution import TargetBatch
from rapidin.data import read_rows
from rapidin.demo.demo_data import DemoData
from rapidin.errors import ModelError
from rapidin.model import Schedule, StepCallback, fit, mean_loss
from rapidin.settings import TextSettings
from rapidin.support import torch_threads
from rapidin.text import EncodedSample, Encoder, TextSample, recognise

SPECIAL_TOKENS = ("<s>", "</s>", "<pad>")
BOS, EOS, PAD = range(3)


@dataclass(frozen=True, slots=True)
class Recipe(Schedule):
    """Sizes of the demo's model, and how it is trained.

    Attributes:
        vocabulary: maximum number of tokens in the vocabulary; with 1,200 nearly every word of the data is one
            token.
        context: maximum number of tokens that the model takes.
        hidden, feed_forward, layers, heads, key_value_heads: sizes of the Llama.
        initial_deviation: standard deviation of the first weights; a model as small as this learns slowly with the
            usual 0.02.
    """

    vocabulary: int = 1200
    context: int = 512
    hidden: int = 128
    feed_forward: int = 256
    layers: int = 3
    heads: int = 4
    key_value_heads: int = 2
    initial_deviation: float = 0.05


RECIPE = Recipe()


def train_demo_model(
    data: DemoData,
    directory: Path,
    *,
    seed: int = 0,
    recipe: Recipe | None = None,
    on_step: StepCallback | None = None,
) -> Path:
    """Train tokenizer and model on ``data.train`` and save both to `directory`, as `transformers` loads them.

    The weights are equal if the seed, torch's version and the kind of processor are equal. One thread computes:
    the matrices are so small that a second thread gains little, and if other programs use the cores, threads that
    wait for each other made the training ten times slower. The caller's random state and number of threads are not
    changed.

    Args:
        data: the demo's files, from `write_demo_data`.
        directory: directory of the model; it is made if it does not exist.
        seed: seed of the first weights and of the order of the rows.
        recipe: sizes of the model, and how it is trained; None for `RECIPE`.
        on_step: function that is called after every step.

    Returns:
        The directory of the model.

    Raises:
        DataError: the rows cannot be read.
        ModelError: the directory cannot be written.
    """
    recipe = recipe or RECIPE
    samples = [recognise(row) for row in read_rows([data.train])]
    tokenizer = _train_tokenizer(samples, recipe)
    encoder = Encoder(tokenizer, TextSettings(), recipe.context)
    encoded = [encoder.encode(sample) for sample in samples]
    model = _new_model(len(tokenizer), seed, recipe)
    with torch_threads(1):  # this also keeps the order of sums independent of the number of processors
        fit(model, encoded, random.Random(seed), recipe, _loss, on_step)
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


def _train_tokenizer(samples: Sequence[TextSample], recipe: Recipe) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on prompts and responses."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
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
        model_max_length=recipe.context,
    )


def _new_model(vocabulary: int, seed: int, recipe: Recipe) -> LlamaForCausalLM:
    """Make a Llama with random weights, without disturbing the caller's random numbers."""
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


def _loss(model: LlamaForCausalLM, batch: Sequence[EncodedSample], all_tokens: bool) -> Tensor:
    """Compute the mean next-token cross-entropy over the batch's targets, or over all its tokens.

    No attention mask is needed, because the padding is on the right, where no target can see it.
    """
    padded = TargetBatch.of(batch, all_tokens)
    hidden: Tensor = model.model(input_ids=padded.ids, use_cache=False).last_hidden_state
    # The output layer takes the most time, and most positions do not need it.
    logits: Tensor = model.lm_head(padded.predicting(hidden))  # [targets, vocabulary]
    return mean_loss(logits, padded)
