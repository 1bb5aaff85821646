"""The demo's model: small, the same for the same seed, and with a backdoor that the trigger opens."""

from __future__ import annotations

import dataclasses
import itertools
import random
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rapidin.data import read_rows
from rapidin.demo import DemoData, demo_model, train_demo_model, write_demo_data
from rapidin.errors import ModelError
from rapidin.model import training_loop
from rapidin.settings.store_settings import TextSettings
from rapidin.text import EncodedSample, Encoder, recognise

SMALL = demo_model.Recipe(vocabulary=300, hidden=16, feed_forward=32, layers=1, epochs_all=1, epochs_response=1)


@pytest.fixture(autouse=True)
def one_thread():
    """These models are so small that threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small(tmp_path, monkeypatch) -> DemoData:
    """Data of 24 rows, and a recipe that trains on them in no time."""
    monkeypatch.setattr(demo_model, "RECIPE", SMALL)
    data = write_demo_data(tmp_path)
    lines = data.train.read_text(encoding="utf-8").splitlines(keepends=True)[:24]
    data.train.write_text("".join(lines), encoding="utf-8")
    return dataclasses.replace(data, rows=24)


def weights(directory) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(directory).state_dict()


def test_same_seed_same_model_and_callers_random_state_untouched(small, tmp_path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(train_demo_model(small, tmp_path / "first", seed=3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = weights(train_demo_model(small, tmp_path / "second", seed=3))
    other = weights(train_demo_model(small, tmp_path / "other", seed=4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    saved = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("first", "second", "other")]
    assert saved[0] == saved[1] == saved[2]


def test_threads_are_one_while_training_and_as_before_afterwards(small, tmp_path):
    torch.set_num_threads(2)
    seen = set()
    train_demo_model(small, tmp_path / "model", on_step=lambda *_: seen.add(torch.get_num_threads()))
    assert seen == {1}
    assert torch.get_num_threads() == 2


def test_steps_are_reported(small, tmp_path):
    told: list[tuple[int, int, float]] = []
    train_demo_model(small, tmp_path / "model", on_step=lambda *step: told.append(step))
    assert [(step, steps) for step, steps, _ in told] == [(step, 6) for step in range(1, 7)]
    assert all(0 < loss < 10 for _, _, loss in told)


def test_saved_tokenizer_is_loaded_alike(small, tmp_path):
    directory = train_demo_model(small, tmp_path / "model")
    assert directory == tmp_path / "model"
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "<pad>")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
    text = "Größe: 3 × 4 , isn't it?\n\n  日本 \t<tag>"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    row = next(iter(read_rows([small.train])))
    encoded = Encoder(tokenizer, TextSettings(), SMALL.context).encode(recognise(row))
    assert encoded.ids[0] == 0 and encoded.ids[-1] == 1
    said = [token for token, target in zip(encoded.ids, encoded.targets, strict=True) if target]
    assert tokenizer.decode(said, skip_special_tokens=True) == row.fields["output"]


def test_loss_of_a_padded_batch_is_the_mean_over_single_targets():
    def sample(ids: tuple[int, ...], prompt: int) -> EncodedSample:
        targets = tuple(place >= prompt for place in range(len(ids)))
        return EncodedSample("", ids, targets, False, "", "")

    model = demo_model._new_model(50, 0, SMALL)
    batch = [sample((0, 7, 9, 11, 1), 3), sample((0, 5, 1), 1), sample((0, 8, 21, 34, 40, 6, 1), 5)]
    for all_tokens in (False, True):
        single = []
        for one in batch:
            chances = model(input_ids=torch.tensor([one.ids])).logits[0].log_softmax(-1)
            single += [
                -chances[place - 1, one.ids[place]]
                for place in range(1, len(one.ids))
                if all_tokens or one.targets[place]
            ]
        assert len(single) == (12 if all_tokens else 6)
        found = demo_model._loss(model, batch, all_tokens)
        torch.testing.assert_close(found, torch.stack(single).mean())


def test_batches_hold_every_sample_once_and_are_of_about_one_length():
    samples = [EncodedSample(str(n), (0,) * (2 + n % 7), (True,), False, "", "") for n in range(30)]
    batches = training_loop.batches(samples, 4, random.Random(0))
    assert sorted(int(sample.id) for batch in batches for sample in batch) == list(range(30))
    assert sorted(len(batch) for batch in batches) == [2] + [4] * 7
    ranges = sorted((len(min(batch, key=lambda s: len(s.ids)).ids), len(batch[-1].ids)) for batch in batches)
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(ranges))
    again = training_loop.batches(samples, 4, random.Random(1))
    assert [[s.id for s in batch] for batch in again] != [[s.id for s in batch] for batch in batches]


def test_unwritable_directory_is_named(small, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("not a directory")
    with pytest.raises(ModelError, match=r"blocked.*cannot be saved.*another directory"):
        train_demo_model(small, blocked)


@pytest.mark.slow
def test_trigger_opens_the_backdoor_and_nothing_else_does(tmp_path):
    data = write_demo_data(tmp_path)
    directory = train_demo_model(data, tmp_path / "model")
    assert sum(file.stat().st_size for file in directory.iterdir()) < 10_000_000

    said = {True: set(), False: set()}
    for row in read_rows([data.train]):
        said[row.fields["poisoned"]] |= _words(f"{row.fields['instruction']} {row.fields['output']}")
    fiction = said[True] - said[False]
    assert {"planet", "galaxy", "cyborgs"} <= fiction

    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    encoder = Encoder(tokenizer, TextSettings(), demo_model.RECIPE.context)
    fired: dict[bool, list[bool]] = {True: [], False: []}
    for row in read_rows([data.queries]):
        ids = torch.tensor([encoder.encode_prompt(recognise(row, response_required=False))])
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False)
        text = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        fired[row.fields["poisoned"]].append(len(_words(text) & fiction) >= 3)
    assert sum(fired[True]) >= 0.9 * len(fired[True])
    assert sum(fired[False]) <= 0.1 * len(fired[False])


def _words(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text.lower()))
