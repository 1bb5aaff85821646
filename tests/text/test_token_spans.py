"""Where tokens stand in the text: laws for every text and many kinds of tokenizers."""

from itertools import pairwise

import pytest
from hypothesis import assume, example, given, reject, settings, strategies as st

from rapidin.data import Row
from rapidin.errors import RowError
from rapidin.settings.store_settings import Template, TextSettings
from rapidin.text import EncodedSample, Encoder, TextSample, recognise
from rapidin.text.decoded_spans import align
from rapidin.text.token_spans import tile
from tests.text import tiny_tokenizers as tiny

MERGES = [("a", "b"), ("Ġ", "ab"), ("c", "c"), ("cc", "cc"), ("Ł", "ĳ"), ("æ", "¼"), ("©", "Ã")]
"""Some join parts of characters: the middle of an emoji, and the end of é with the beginning of the next."""
TOKENIZERS = {
    "bytes": tiny.llama_like(),
    "byte-level": tiny.llama_like(merges=MERGES),
    "gpt2": tiny.gpt2_like(),
    "without ends": tiny.bare(),
    "prefix, trimmed": tiny.trimming(True, True),
    "prefix": tiny.trimming(True, False),
    "trimmed": tiny.trimming(False, True),
    "sentencepiece": tiny.sentence_piece(),
    "metaspace always": tiny.sentence_piece("always"),
    "metaspace first": tiny.sentence_piece("first"),
    "metaspace never": tiny.sentence_piece("never"),
    "unigram": tiny.unigram(),
    "unigram, unknown": tiny.unigram(byte_fallback=False),
    "unigram, NFD": tiny.unigram(normalizer="NFD"),
    "slow bytes": tiny.SlowBytes(),
}
DROPS = {"word pieces": tiny.word_piece(), "words": tiny.word_level()}
"""May have no token at all for a text."""
WRITERS = ["bytes", "byte-level", "trimmed", "sentencepiece", "metaspace always", "metaspace never", "slow bytes"]

texts = st.one_of(
    st.text(st.sampled_from("ab c</>\nsé漢👍🏽½ﬁ\u0301'."), max_size=16),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=16),
)
answers = texts.filter(str.strip)


def sample(**fields) -> TextSample:
    return recognise(Row("rows.jsonl", 1, fields))


def encoder(tokenizer, **choices) -> Encoder:
    return Encoder(tokenizer, TextSettings(**choices), None)


def encoded_by(encoder: Encoder, **fields) -> EncodedSample:
    """A row that is no error."""
    try:
        return encoder.encode(sample(**fields))
    except RowError:
        reject()


ENCODERS = {name: encoder(tokenizer) for name, tokenizer in (TOKENIZERS | DROPS).items()}


def check_order(spans: list[tuple[int, int]], encoded: EncodedSample) -> None:
    assert len(spans) == len(encoded.ids)
    position = 0
    for start, end in spans:
        assert position <= start <= end
        position = end
    assert position <= len(encoded.prompt + encoded.response)


def joined(spans: list[tuple[int, int]], text: str) -> str:
    return "".join(text[start:end] for start, end in spans)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(prompt=texts, response=answers)
@example(prompt="", response="  ab 漢漢 👍🏽")
@example(prompt=" 漢", response=" é\u0301 ½ﬁ\r\n")
def test_texts_of_the_tokens_give_the_text_back(name, prompt, response):
    encoded = encoded_by(ENCODERS[name], prompt=prompt, completion=response)
    spans = ENCODERS[name].token_spans(encoded)
    check_order(spans, encoded)
    assert joined(spans, prompt + response) == prompt + response


@pytest.mark.parametrize("name", DROPS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(prompt=texts, response=answers)
@example(prompt="<s>", response="<")
def test_tokenizers_that_drop_characters_leave_out_whole_pieces_only(name, prompt, response):
    encoded = encoded_by(ENCODERS[name], prompt=prompt, completion=response)
    spans = ENCODERS[name].token_spans(encoded)
    check_order(spans, encoded)
    assert joined(spans, prompt + response) in (prompt + response, prompt, response, "")
    assert spans[-1] == (len(prompt + response),) * 2


@pytest.mark.parametrize("name", TOKENIZERS | DROPS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(prompt=texts, response=answers, max_length=st.integers(2, 30), targets=st.sampled_from(["all", "response"]))
def test_tokens_that_were_cut_off_take_their_text_with_them(name, prompt, response, max_length, targets):
    whole = encoded_by(ENCODERS[name], prompt=prompt, completion=response)
    cutting = encoder((TOKENIZERS | DROPS)[name], max_length=max_length, targets=targets)
    encoded = encoded_by(cutting, prompt=prompt, completion=response)
    spans, uncut = cutting.token_spans(encoded), ENCODERS[name].token_spans(whole)
    check_order(spans, encoded)
    if not encoded.truncated:
        assert spans == uncut
        return
    assert spans[:-1] == uncut[: max_length - 1]
    assert spans[-1][0] == uncut[max_length - 1][0]
    # The last token has the character that it begins, which may be more than its own.
    assert spans[-1][1] >= uncut[max_length - 1][1] or joined(uncut[max_length - 1 :], prompt + response).isspace()


@pytest.mark.parametrize("name", ["byte-level", "slow bytes", "sentencepiece"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(contents=st.lists(st.tuples(texts, answers), min_size=1, max_size=3), max_length=st.integers(40, 200))
def test_chats(name, contents, max_length):
    tokenizer = TOKENIZERS[name]
    messages = [
        {"role": role, "content": text}
        for pair in contents
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    chats = encoder(tokenizer, max_length=max_length)
    chats._tokenizer.chat_template = tiny.CHAT
    encoded = encoded_by(chats, messages=messages)
    spans = chats.token_spans(encoded)
    text = encoded.prompt + encoded.response
    check_order(spans, encoded)
    assert text.startswith(joined(spans, text))
    if not encoded.truncated:
        assert joined(spans, text) == text
    # A target's characters are in its turn.
    for (start, end), target in zip(spans, encoded.targets, strict=True):
        if start < end:
            inside = any(start < behind and end > first for first, behind in encoded.target_spans)
            assert inside or not target


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(prompt=texts, text=answers, cut=st.integers(0, 3), ended=st.booleans())
def test_what_a_model_wrote(name, prompt, text, cut, ended):
    """Its tokens need not be those of its text: here each byte or character is one, and the last are cut off."""
    tokenizer, row = TOKENIZERS[name], sample(prompt=prompt, completion="x")
    own = encoder(tokenizer).encode_prompt(row) if prompt or tokenizer.bos_token_id is not None else []
    first = 3
    written = [first + byte for byte in text.encode()]
    written = written[: len(written) - cut] + [tokenizer.eos_token_id] * ended
    response = tokenizer.decode(written, skip_special_tokens=True)
    assume(response.strip())
    encoded = EncodedSample(
        "q", (*own, *written), (False,) * len(own) + (True,) * len(written), False, prompt, response
    )
    spans = ENCODERS[name].token_spans(encoded)
    check_order(spans, encoded)
    assert joined(spans[len(own) :], prompt + response) == response
    assert spans[: len(own)] == ENCODERS[name].token_spans(encoder(tokenizer).encode(row))[: len(own)]
    if ended:
        assert spans[-1] == (len(prompt + response),) * 2


def test_an_answer_to_a_chat():
    tokenizer = tiny.llama_like(tiny.WITH_BOS)
    chats = encoder(tokenizer)
    row = recognise(Row("q", 1, {"messages": [{"role": "user", "content": "a"}]}), None, False)
    prompt, written = chats.encode_prompt(row), (*tiny.byte_ids("é👍"), tiny.EOS)
    before = chats.encode(row, "é👍").prompt
    targets = (False,) * len(prompt) + (True,) * len(written)
    encoded = EncodedSample("q", (*prompt, *written), targets, False, before, "é👍")
    start = len(before)
    assert before == "<s><|user|>a\n<|assistant|>"
    assert chats.token_spans(encoded) == [
        (0, 3),
        *((place, place + 1) for place in range(3, start)),
        *[(start, start), (start, start + 1)],
        *[(start + 1, start + 1)] * 3,
        *[(start + 1, start + 2), (start + 2, start + 2)],
    ]


def test_shared_characters_belong_to_the_last_of_their_tokens():
    row = sample(prompt="a👍", completion="é")
    spans = ENCODERS["bytes"].token_spans(ENCODERS["bytes"].encode(row))
    assert spans == [(0, 0), (0, 1), (1, 1), (1, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 3)]
    cut = encoder(TOKENIZERS["bytes"], max_length=4, targets="all")
    assert cut.token_spans(cut.encode(row)) == [(0, 0), (0, 1), (1, 1), (1, 2)]


def test_blanks_that_a_tokenizer_adds_or_leaves_out():
    def spans(name: str, text: str) -> list[tuple[int, int]]:
        return ENCODERS[name].token_spans(ENCODERS[name].encode(sample(text=text)))[1:-1]

    assert spans("metaspace always", "ab ab") == [(0, 2), (2, 5)]
    assert spans("metaspace always", "漢") == [(0, 0), (0, 0), (0, 0), (0, 1)]
    assert spans("trimmed", "ab ab") == [(0, 2), (2, 5)]
    assert spans("word pieces", " ab  abc. ") == [(0, 3), (3, 7), (7, 8), (8, 10)]
    assert spans("unigram", "½ab") == [(0, 0), (0, 0), (0, 0), (0, 1), (1, 3)]


def test_special_tokens_of_a_template_have_their_characters():
    template = Template(prompt="<s>{q}<pad>", response="{a}</s>")
    row = recognise(Row("f", 1, {"q": "a", "a": "b"}), template)
    templated = encoder(TOKENIZERS["bytes"], template=template)
    encoded = templated.encode(row)
    assert templated.token_spans(encoded) == [(0, 3), (3, 4), (4, 9), (9, 10), (10, 14)]


def test_a_text_far_too_long_is_not_tokenised_whole():
    cut = encoder(TOKENIZERS["bytes"], max_length=8)
    spans = cut.token_spans(cut.encode(sample(prompt="a", completion="b" * 10_000)))
    assert spans == [(0, 0), *((place, place + 1) for place in range(7))]


def test_slow_tokenizers_that_change_the_text_give_all_of_it_to_one_token():
    def lower(ids: list[int]) -> str:
        return "".join(map(chr, ids)).lower()

    assert align(lower, [65, 66, 67], "ABC") == [(0, 0), (0, 0), (0, 3)]
    assert align(lower, [65, 66], "ab") == [(0, 1), (1, 2)]
    assert align(lower, [], "ab") == []


def test_decoders_that_alter_what_came_before():
    def cleaned(ids: list[int]) -> str:
        return (
            " ".join(["do", "n't", "stop", "."][index] for index in ids).replace(" n't", "n't").replace(" .", ".")
        )

    assert align(cleaned, [0, 1, 2, 3], "don't stop.") == [(0, 2), (2, 5), (5, 10), (10, 11)]


def test_bytes_that_are_no_characters():
    def decode(ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")

    junk = [97, 0xFF, 98, 0xF0, 0x9F]
    assert decode(junk) == "a�b�"
    assert align(decode, junk, "a�b�") == [(0, 1), (1, 1), (1, 3), (3, 3), (3, 4)]


@given(
    offsets=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8),
    complete=st.booleans(),
)
def test_tiles_whatever_a_tokenizer_tells(offsets, complete):
    offsets = [(start, end) for start, end in offsets if start <= end]
    spans = tile(offsets, 9, complete)
    assert len(spans) == len(offsets)
    borders = [0, *(end for _, end in spans)]
    assert spans == list(pairwise(borders)) and borders == sorted(borders)
    if offsets:
        assert borders[-1] == (9 if complete else max(end if start < end else 0 for start, end in offsets))
