import logging
import time

import pytest
import transformers

from rapidin.data import Row
from rapidin.errors import RowError, SettingError
from rapidin.settings.store_settings import Template, TextSettings
from rapidin.text import EncodedSample, Encoder, TextSample, recognise
from tests.text import tiny_tokenizers as tiny
from tests.text.tiny_tokenizers import BOS, EOS, byte_ids


def sample(required: bool = True, template: Template | None = None, **fields) -> TextSample:
    return recognise(Row("rows.jsonl", 3, {"id": "r", **fields}), template, required)


def encoder(tokenizer, context_length: int | None = None, **settings) -> Encoder:
    return Encoder(tokenizer, TextSettings(**settings), context_length)


def pattern(encoded: EncodedSample) -> str:
    """Targets as a string: '.' for context, 'T' for a target."""
    return "".join(".T"[target] for target in encoded.targets)


def test_words_of_prompt_and_completion():
    encoded = encoder(tiny.word_level()).encode(sample(prompt="Say hi to you", completion="hello you"))
    assert encoded == EncodedSample(
        id="r",
        ids=(0, 4, 5, 7, 8, 6, 8, 1),
        targets=(False, False, False, False, False, True, True, True),
        truncated=False,
        prompt="Say hi to you",
        response="hello you",
    )


def test_bytes_of_alpaca_with_one_space_before_the_response():
    row = sample(instruction="é", output="漢")
    encoded = encoder(tiny.llama_like()).encode(row)
    assert row.prompt.endswith("\n\n### Response: ")
    assert encoded.ids == (BOS, *byte_ids(row.prompt), *byte_ids("漢"), EOS)
    assert pattern(encoded) == "." * (1 + len(row.prompt.encode())) + "TTT" + "T"


def test_text_is_all_target_but_the_first_token():
    encoded = encoder(tiny.llama_like()).encode(sample(text="abc"))
    assert (encoded.ids, pattern(encoded)) == ((BOS, *byte_ids("abc"), EOS), ".TTTT")
    assert (encoded.prompt, encoded.response) == ("", "abc")
    without_bos = encoder(tiny.gpt2_like()).encode(sample(text="abc"))
    assert (without_bos.ids, pattern(without_bos)) == ((*byte_ids("abc"), EOS), ".TTT")


@pytest.mark.parametrize(
    ("tokenizer", "begin", "end"),
    [
        (tiny.llama_like(), [BOS], [EOS]),
        (tiny.gpt2_like(), [], [EOS]),
        (tiny.gpt2_like(puts_bos_first=True), [EOS], [EOS]),
        (tiny.bare(), [], []),
    ],
    ids=["own bos", "bos is eos", "bos is eos and put first", "neither"],
)
def test_begin_and_end_tokens(tokenizer, begin, end):
    encoded = encoder(tokenizer).encode(sample(prompt="ab", completion="cd"))
    assert list(encoded.ids) == begin + byte_ids("abcd") + end
    assert pattern(encoded) == "." * (len(begin) + 2) + "TT" + "T" * len(end)


def test_template_decides_about_begin_and_end():
    row = sample(template=Template(prompt="{q}", response="{a}"), q="ab", a="cd")

    def ids(tokenizer, **choices) -> list[int]:
        template = Template(prompt="{q}", response="{a}", **choices)
        return list(encoder(tokenizer, template=template).encode(row).ids)

    text = byte_ids("abcd")
    assert ids(tiny.llama_like()) == [BOS, *text, EOS]
    assert ids(tiny.llama_like(), add_bos=False, add_eos=False) == text
    assert ids(tiny.gpt2_like(), add_bos=True) == [EOS, *text, EOS]
    with pytest.raises(SettingError, match="the tokenizer has none; leave add_bos out"):
        ids(tiny.bare(), add_bos=True)


def test_loss_of_all_tokens():
    encoded = encoder(tiny.llama_like(), targets="all").encode(sample(prompt="ab", completion="c"))
    assert pattern(encoded) == ".TTTT"
    chat = encoder(tiny.llama_like(tiny.WITH_BOS), targets="all").encode(sample(messages=CHAT[:2]))
    assert pattern(chat) == "." + "T" * (len(chat.ids) - 1)


def test_response_given_from_outside():
    row = sample(required=False, prompt="ab")
    with pytest.raises(RowError, match=r"row 3 \(id 'r'\): has no response"):
        encoder(tiny.llama_like()).encode(row)
    encoded = encoder(tiny.llama_like()).encode(row, response="cd")
    assert (list(encoded.ids), pattern(encoded)) == ([BOS, *byte_ids("abcd"), EOS], "...TTT")
    assert (encoded.prompt, encoded.response) == ("ab", "cd")
    own = sample(prompt="ab", completion="xyz")
    assert encoder(tiny.llama_like()).encode(own, response="cd") == encoded


def test_special_tokens_in_a_row_are_tokens_and_not_put_twice(caplog):
    """Trainers read them so, and a text that was rendered before has them."""
    caplog.set_level(logging.INFO)
    own = encoder(tiny.llama_like())
    encoded = own.encode(sample(prompt="a</s>", completion="<s>b"))
    assert list(encoded.ids) == [BOS, *byte_ids("a"), EOS, BOS, *byte_ids("b"), EOS]
    rendered = own.encode(sample(prompt="<s>a", completion="b</s>"))
    assert list(rendered.ids) == [BOS, *byte_ids("ab"), EOS]
    assert pattern(rendered) == "..TT"
    whole = own.encode(sample(text="<s>ab</s>"))
    assert list(whole.ids) == [BOS, *byte_ids("ab"), EOS]
    assert pattern(whole) == ".TTT"
    assert own.token_spans(whole) == [(0, 3), (3, 4), (4, 5), (5, 9)]
    assert caplog.text.count("texts that contain a special token, such as") == 1


def test_special_tokens_of_a_template_are_tokens_and_not_put_twice():
    template = Template(prompt="<s>{q}<pad>", response="{a}</s>")
    row = sample(template=template, q="a", a="b")
    encoded = encoder(tiny.llama_like(), template=template).encode(row)
    assert list(encoded.ids) == [BOS, *byte_ids("a"), tiny.PAD, *byte_ids("b"), EOS]
    assert pattern(encoded) == "...TT"


@pytest.mark.parametrize(
    ("max_length", "length", "truncated", "targets"),
    [(8, 8, False, "....TTTT"), (7, 7, True, "....TTT"), (5, 5, True, "....T")],
)
def test_truncation_cuts_the_end(max_length, length, truncated, targets):
    row = sample(prompt="abc", completion="def")
    encoded = encoder(tiny.llama_like(), max_length=max_length).encode(row)
    whole = (BOS, *byte_ids("abcdef"), EOS)
    assert (encoded.ids, encoded.truncated) == (whole[:length], truncated)
    assert pattern(encoded) == targets
    assert (encoded.prompt, encoded.response) == ("abc", "def")


@pytest.mark.parametrize("max_length", [2, 3, 4])
def test_prompt_that_fills_the_length(max_length):
    row = sample(prompt="abc", completion="def")
    short = encoder(tiny.llama_like(), max_length=max_length)
    expected = rf"rows.jsonl, row 3 \(id 'r'\): the prompt alone fills the {max_length} tokens of --max-length"
    with pytest.raises(RowError, match=expected):
        short.encode(row)
    with pytest.raises(RowError, match=expected):
        short.encode_prompt(row)


def test_no_token_to_predict():
    with pytest.raises(RowError, match="no token to predict"):
        encoder(tiny.bare()).encode(sample(text="a"))


def test_maximum_length_is_bound_by_the_context():
    assert encoder(tiny.bare()).max_length == 2048
    assert encoder(tiny.bare(), 4096).max_length == 2048
    assert encoder(tiny.bare(), 512).max_length == 512
    assert encoder(tiny.bare(), 512, max_length=512).max_length == 512
    assert encoder(tiny.bare(), 4096, max_length=3000).max_length == 3000
    with pytest.raises(SettingError, match=r"--max-length 513 is more than the model's context of 512 tokens"):
        encoder(tiny.bare(), 512, max_length=513)


def test_malformed_template():
    with pytest.raises(SettingError, match="cannot be used"):
        encoder(tiny.bare(), template=Template(prompt="{a[0]}", response="{b}"))


def test_prompt_ids():
    row = sample(required=False, prompt="ab")
    assert encoder(tiny.llama_like()).encode_prompt(row) == [BOS, *byte_ids("ab")]
    chat = encoder(tiny.llama_like(tiny.CHAT)).encode_prompt(sample(required=False, messages=CHAT[:1]))
    assert chat == byte_ids("<|user|>Hi\n<|assistant|>")
    with_answer = encoder(tiny.llama_like(tiny.CHAT)).encode_prompt(sample(messages=CHAT))
    assert with_answer == byte_ids("<|user|>Hi\n<|assistant|>Hello\n<|user|>Bye\n<|assistant|>")
    with pytest.raises(RowError, match="no prompt after which the model could write"):
        encoder(tiny.bare()).encode_prompt(sample(text="abc"))


CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "漢é"},
]
RENDERED = [
    ("<|user|>Hi\n<|assistant|>", "."),
    ("Hello\n", "T"),
    ("<|user|>Bye\n<|assistant|>", "."),
    ("漢é\n", "T"),
]


def expected_pattern(*pieces: tuple[str, str]) -> str:
    return "".join(mark * len(text.encode()) for text, mark in pieces)


def test_chat_with_several_turns():
    encoded = encoder(tiny.llama_like(tiny.CHAT)).encode(sample(messages=CHAT))
    text = "".join(piece for piece, _ in RENDERED)
    assert list(encoded.ids) == byte_ids(text)
    assert pattern(encoded) == expected_pattern(*RENDERED)
    assert (encoded.prompt, encoded.response) == (RENDERED[0][0], text[len(RENDERED[0][0]) :])
    assert not encoded.truncated


def test_multi_byte_characters_before_a_target():
    messages = [{"role": "user", "content": "👍🏽é漢"}, {"role": "assistant", "content": "é"}]
    encoded = encoder(tiny.llama_like(tiny.CHAT)).encode(sample(messages=messages))
    assert pattern(encoded) == expected_pattern(("<|user|>👍🏽é漢\n<|assistant|>", "."), ("é\n", "T"))


def test_token_across_the_border_belongs_where_it_begins():
    border = tiny.llama_like(tiny.CHAT, merges=[(">", "H"), ("l", "l")])
    encoded = encoder(border).encode(sample(messages=CHAT[:2]))
    tokens = border.convert_ids_to_tokens(list(encoded.ids))
    # byte-level BPE splits "|>" from "Hello" first, so that ">H" never arises; "ll" does
    assert "".join(token for token, target in zip(tokens, encoded.targets, strict=True) if target) == "HelloĊ"
    assert "ll" in tokens


def test_special_tokens_of_a_chat_template_are_tokens():
    encoded = encoder(tiny.llama_like(tiny.WITH_BOS)).encode(sample(messages=CHAT[:2]))
    assert list(encoded.ids) == [BOS, *byte_ids("<|user|>Hi\n<|assistant|>Hello\n")]
    assert pattern(encoded)[:2] == ".."


def test_chat_with_trailing_question_is_trained_on_its_answers():
    encoded = encoder(tiny.llama_like(tiny.CHAT)).encode(sample(messages=CHAT[:3]))
    assert pattern(encoded) == expected_pattern(*RENDERED[:2], ("<|user|>Bye\n", "."))


def test_chat_with_response_from_outside_has_one_target():
    chats = encoder(tiny.llama_like(tiny.CHAT))
    query = sample(required=False, messages=CHAT[:3])
    encoded = chats.encode(query, response="So")
    pieces = [("<|user|>Hi\n<|assistant|>Hello\n<|user|>Bye\n<|assistant|>", "."), ("So\n", "T")]
    assert list(encoded.ids) == byte_ids("".join(text for text, _ in pieces))
    assert pattern(encoded) == expected_pattern(*pieces)
    assert (encoded.prompt, encoded.response) == (pieces[0][0], pieces[1][0])
    assert chats.encode(sample(messages=CHAT), response="So") == encoded
    with pytest.raises(RowError, match="has no token to predict"):
        chats.encode(sample(required=False, messages=CHAT[:1]))


@pytest.mark.parametrize("slow", [False, True])
def test_chat_is_cut(slow):
    tokenizer = tiny.SlowTokenizer() if slow else tiny.llama_like()
    tokenizer.chat_template = tiny.CHAT
    ascii_chat = [*CHAT[:3], {"role": "assistant", "content": "So"}]
    whole = encoder(tokenizer).encode(sample(messages=ascii_chat))
    for max_length in range(2, len(whole.ids) + 2):
        short = encoder(tokenizer, max_length=max_length)
        if not any(whole.targets[:max_length]):
            with pytest.raises(RowError, match=f"the prompt alone fills the {max_length} tokens"):
                short.encode(sample(messages=ascii_chat))
            continue
        encoded = short.encode(sample(messages=ascii_chat))
        assert encoded.ids == whole.ids[:max_length]
        assert encoded.targets == whole.targets[:max_length]
        assert encoded.truncated == (len(whole.ids) > max_length)


def test_slow_tokenizer():
    slow = tiny.SlowTokenizer()
    slow.chat_template = tiny.CHAT
    encoded = encoder(slow).encode(sample(messages=CHAT[:3]))
    text = "<|user|>Hi\n<|assistant|>Hello\n<|user|>Bye\n"
    assert list(encoded.ids) == [ord(character) for character in text]
    assert pattern(encoded) == expected_pattern(*RENDERED[:2], ("<|user|>Bye\n", "."))
    pieces = encoder(slow).encode(sample(prompt="a</s>", completion="b"))
    assert list(pieces.ids) == [128, ord("a"), 129, ord("b"), 129]


@pytest.mark.parametrize(
    ("template", "messages", "complaint"),
    [
        (None, CHAT, "the row is a chat and the tokenizer has no chat template"),
        (tiny.REWRITES, CHAT, "message 2: the chat template rewrites earlier turns once others follow"),
        (
            tiny.NO_GENERATION_PROMPT,
            CHAT[:2],
            "message 2: the chat template does not render the assistant's turn after",
        ),
        (
            tiny.REFUSES,
            CHAT[:2],
            "the chat template cannot render its 2 first messages: roles must alternate",
        ),
        (tiny.CHAT, CHAT[1:2], "message 1 is the assistant's; a chat needs a message before it"),
    ],
)
def test_chats_that_cannot_be_encoded(template, messages, complaint):
    with pytest.raises(RowError, match=rf"rows.jsonl, row 3 \(id 'r'\): {complaint}"):
        encoder(tiny.llama_like(template)).encode(sample(messages=messages))


def test_template_that_rewrites_earlier_turns_is_fine_with_one():
    encoded = encoder(tiny.llama_like(tiny.REWRITES)).encode(sample(messages=CHAT[:2]))
    assert pattern(encoded) == expected_pattern(*RENDERED[:2])


def test_tokenizer_is_left_alone_and_silent(caplog, monkeypatch):
    tokenizer = tiny.llama_like(tiny.CHAT)
    tokenizer._tokenizer.enable_truncation(5)  # model_max_length is 16
    before = tokenizer._tokenizer.to_str(), tokenizer._tokenizer.encode_special_tokens
    monkeypatch.setattr(transformers.utils.logging.get_logger("transformers"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        long = encoder(tokenizer)
        assert len(long.encode(sample(prompt="x" * 50, completion="y" * 50)).ids) == 102
        assert len(long.encode(sample(messages=CHAT)).ids) > 16
    assert (tokenizer._tokenizer.to_str(), tokenizer._tokenizer.encode_special_tokens) == before
    assert not caplog.records


def test_long_texts_take_no_longer_than_their_beginning():
    """Ten megabytes would take 14 seconds if all of it were tokenised."""
    text = "hello world. " * 800_000
    start = time.perf_counter()
    tokenizer = tiny.llama_like(tiny.CHAT)
    short = encoder(tokenizer, max_length=100)
    ids = byte_ids(text[:200])
    assert list(short.encode(sample(text=text)).ids) == [BOS, *ids[:99]]
    encoded = short.encode(sample(prompt="ab", completion=text))
    assert (list(encoded.ids), encoded.truncated) == ([BOS, *byte_ids("ab"), *ids[:97]], True)
    with pytest.raises(RowError, match="the prompt alone fills the 100 tokens"):
        short.encode(sample(prompt=text, completion="ab"))
    chat = short.encode(sample(messages=[CHAT[0], {"role": "assistant", "content": text}]))
    assert list(chat.ids) == byte_ids("<|user|>Hi\n<|assistant|>" + text[:200])[:100]
    assert time.perf_counter() - start < 5


def test_sparse_long_text_is_tokenised_whole():
    """Where characters are many to a token, the beginning alone would not fill the length."""
    text = "hello " + "y" * 50_000 + " you " + "z" * 50_000 + " hello"
    encoded = encoder(tiny.word_level(), max_length=10).encode(sample(text=text))
    assert encoded.ids == (0, 6, 3, 8, 3, 6, 1)
    assert not encoded.truncated


def test_chat_of_many_turns_is_not_quadratic():
    messages = [CHAT[index % 2] for index in range(10_000)]
    start = time.perf_counter()
    encoded = encoder(tiny.llama_like(tiny.CHAT), max_length=200).encode(sample(messages=messages))
    assert len(encoded.ids) == 200
    assert time.perf_counter() - start < 5
