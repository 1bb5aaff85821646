"""Stored samples encoded again: the very tokens and targets that were ingested."""

from dataclasses import replace

import pytest
from hypothesis import given, reject, settings, strategies as st

from rapidin.data import Row
from rapidin.errors import RowError, StoreMismatchError
from rapidin.records.samples import Sample
from rapidin.settings.store_settings import Template, TextSettings
from rapidin.text import EncodedSample, Encoder, TextSample, recognise
from tests.text import tiny_tokenizers as tiny

MERGES = [("a", "b"), ("Ġ", "ab"), ("Ċ", "Ċ"), (">", ">")]
"""The last one joins the end of a generation prompt with an answer that begins so."""
TOKENIZERS = {
    "llama": tiny.llama_like(tiny.CHAT, MERGES),
    "gpt2": tiny.gpt2_like(),
    "sentencepiece": tiny.sentence_piece(),
    "word pieces": tiny.word_piece(),
    "slow": tiny.SlowBytes(),
}
TEMPLATES = [None, Template(prompt="<s>{q}\n", response="{a}</s>"), Template(prompt="Q {q} A", response=" {a}")]
texts = st.text(st.sampled_from("ab c</>\nsé漢👍🏽"), max_size=12)
answers = texts.filter(str.strip)


def stored(row: TextSample, encoded: EncodedSample) -> Sample:
    """What `rapidin.ingest` makes of a row."""
    return Sample(
        id=row.id,
        prompt=encoded.prompt,
        response=encoded.response,
        metadata={},
        file=row.file,
        row=row.row,
        tokens=len(encoded.ids),
        targets=sum(encoded.targets),
        truncated=encoded.truncated,
        content_hash=row.content_hash,
        target_spans=encoded.target_spans,
    )


def make(name: str, **choices) -> Encoder:
    tokenizer = TOKENIZERS[name]
    tokenizer.chat_template = tiny.CHAT
    return Encoder(tokenizer, TextSettings(**choices), None)


def fields_of(shape: str, first: str, second: str) -> dict:
    return {
        "completion": {"prompt": first, "completion": second},
        "response": {"prompt": first, "response": second},
        "text": {"text": second},
        "alpaca": {"instruction": first, "output": second},
        "alpaca with input": {"instruction": first, "input": second, "output": second},
        "template": {"q": first, "a": second},
    }[shape]


choices = st.fixed_dictionaries(
    {"targets": st.sampled_from(["response", "all"]), "max_length": st.sampled_from([None, 6, 20, 200, 300])}
)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    shape=st.sampled_from(["completion", "response", "text", "alpaca", "alpaca with input", "template"]),
    template=st.sampled_from(TEMPLATES[1:]),
    first=texts,
    second=answers,
    choices=choices,
)
def test_prompt_and_response(name, shape, template, first, second, choices):
    wanted = template if shape == "template" else None
    row = recognise(Row("rows.jsonl", 1, fields_of(shape, first, second)), wanted)
    encoder = make(name, template=wanted, **choices)
    try:
        encoded = encoder.encode(row)
    except RowError:
        reject()
    assert encoded.target_spans == ()
    assert encoder.encode_stored(stored(row, encoded)) == encoded


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    contents=st.lists(st.tuples(texts, texts), min_size=1, max_size=4),
    ends_with_user=st.booleans(),
    choices=choices,
)
def test_chats(name, contents, ends_with_user, choices):
    messages = [
        {"role": role, "content": text}
        for pair in contents
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    if ends_with_user:
        messages.append({"role": "user", "content": "ab"})
    encoder = make(name, **choices)
    try:
        row = recognise(Row("rows.jsonl", 1, {"messages": messages}))
        encoded = encoder.encode(row)
    except RowError:
        reject()
    sample = stored(row, encoded)
    assert sample.target_spans
    if not encoded.truncated and name != "word pieces":  # which may have no token for the last turns
        assert len(sample.target_spans) == len(contents)
        for (start, end), (_, answer) in zip(sample.target_spans, contents, strict=True):
            assert sample.text[start:end] == f"{answer}\n"
    assert encoder.encode_stored(sample) == encoded


@pytest.mark.parametrize("change", [{"tokens": 9}, {"targets": 3}, {"truncated": True}])
def test_another_tokenizer_is_an_error(change):
    row = recognise(Row("rows.jsonl", 2, {"id": "x", "prompt": "ab", "completion": "cde"}))
    encoder = make("llama")
    sample = stored(row, encoder.encode(row))
    with pytest.raises(StoreMismatchError, match=r"sample 'x': its text now gives 6 tokens, 4 of them targets"):
        encoder.encode_stored(replace(sample, **change))


def test_samples_of_unknown_origin_are_read_as_they_count():
    """A program that fills a store by its own means may write any digest of the text."""
    row = recognise(Row("f", 1, {"prompt": "ab", "completion": "cde"}))
    encoded = make("llama").encode(row)
    sample = replace(stored(row, encoded), content_hash="mine")
    assert make("llama").encode_stored(sample) == encoded
