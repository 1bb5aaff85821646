"""Laws that hold for every text: what is joined, what is a target, what is cut."""

from hypothesis import assume, given, settings, strategies as st

from rapidin.data import Row
from rapidin.settings.store_settings import TextSettings
from rapidin.text import Encoder, TextSample, recognise
from tests.text import tiny_tokenizers as tiny
from tests.text.tiny_tokenizers import BOS, EOS, byte_ids

MERGES = [("a", "b"), ("Ġ", "ab"), ("c", "c"), ("cc", "cc")]
LLAMA = tiny.llama_like(merges=MERGES)
CHATTY = tiny.llama_like(tiny.CHAT, merges=MERGES)
texts = st.text(st.sampled_from("ab c</>\nsé漢👍🏽"), max_size=20)
answers = texts.filter(str.strip)


def sample(**fields) -> TextSample:
    return recognise(Row("rows.jsonl", 1, fields))


def encoder(tokenizer, **choices) -> Encoder:
    return Encoder(tokenizer, TextSettings(**choices), None)


PLAIN, CHATS = encoder(LLAMA), encoder(CHATTY)


@settings(max_examples=80, deadline=None)
@given(prompt=texts, response=answers, other=answers)
def test_prompt_ids_are_the_same_whatever_follows(prompt, response, other):
    row = sample(prompt=prompt, completion=response)
    prompt_ids = PLAIN.encode_prompt(row)
    encoded, changed = PLAIN.encode(row), PLAIN.encode(row, response=other)
    assert list(encoded.ids[: len(prompt_ids)]) == list(changed.ids[: len(prompt_ids)]) == prompt_ids
    assert encoded.targets == (False,) * len(prompt_ids) + (True,) * (len(encoded.ids) - len(prompt_ids))


@settings(max_examples=80, deadline=None)
@given(prompt=texts, response=answers)
def test_ids_spell_the_text(prompt, response):
    encoded = PLAIN.encode(sample(prompt=prompt, completion=response))
    assert (encoded.ids[0], encoded.ids[-1]) == (BOS, EOS)
    assert encoded.prompt + encoded.response == prompt + response
    # A mark that the text itself begins or ends with is not written twice.
    asked = prompt.removeprefix("<s>")
    answered = (response if prompt else response.removeprefix("<s>")).removesuffix("</s>")
    assert LLAMA.decode(encoded.ids[1:-1]) == asked + answered
    spoken = [token for token, target in zip(encoded.ids, encoded.targets, strict=True) if target]
    assert LLAMA.decode(spoken[:-1]) == answered


@settings(max_examples=80, deadline=None)
@given(prompt=texts, response=answers, max_length=st.integers(2, 60))
def test_truncation_is_a_prefix(prompt, response, max_length):
    row = sample(prompt=prompt, completion=response)
    whole = PLAIN.encode(row)
    assume(any(whole.targets[:max_length]))
    cut = encoder(LLAMA, max_length=max_length).encode(row)
    assert cut.ids == whole.ids[:max_length]
    assert cut.targets == whole.targets[:max_length]
    assert cut.truncated == (len(whole.ids) > max_length)


@settings(max_examples=80, deadline=None)
@given(prompt=texts, response=answers)
def test_loss_of_all_tokens_leaves_out_the_first_only(prompt, response):
    row = sample(prompt=prompt, completion=response)
    everything = encoder(LLAMA, targets="all").encode(row)
    assert everything.ids == PLAIN.encode(row).ids
    assert everything.targets == (False,) + (True,) * (len(everything.ids) - 1)


@settings(max_examples=80, deadline=None)
@given(contents=st.lists(st.tuples(texts, answers), min_size=1, max_size=4))
def test_targets_of_a_chat_spell_the_assistants_turns(contents):
    # In a chat a literal special token is the token itself, which decodes to nothing.
    assume(not any(mark in text for pair in contents for text in pair for mark in ("<s>", "</s>")))
    messages = [
        {"role": role, "content": text}
        for pair in contents
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    encoded = CHATS.encode(sample(messages=messages))
    targets = [token for token, target in zip(encoded.ids, encoded.targets, strict=True) if target]
    assert CHATTY.decode(targets) == "".join(answer + "\n" for _, answer in contents)
    assert CHATTY.decode(encoded.ids) == encoded.prompt + encoded.response
    assert encoded.prompt == f"<|user|>{contents[0][0]}\n<|assistant|>"


@settings(max_examples=40, deadline=None)
@given(user=texts, answer=answers)
def test_byte_tokens_of_a_chat_are_counted_by_their_bytes(user, answer):
    assume("</s>" not in user + answer and "<s>" not in user + answer)
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    encoded = encoder(tiny.llama_like(tiny.CHAT)).encode(sample(messages=messages))
    before = len(f"<|user|>{user}\n<|assistant|>".encode())
    assert list(encoded.ids) == byte_ids(f"<|user|>{user}\n<|assistant|>{answer}\n")
    assert encoded.targets == (False,) * before + (True,) * (len(encoded.ids) - before)
