import datetime
import decimal
import hashlib
import json

import pytest
from hypothesis import given, settings, strategies as st

from rapidin.data import Row
from rapidin.errors import RowError, SettingError
from rapidin.settings.store_settings import Template
from rapidin.text import TextSample, Turn, recognise

HEAD = "Below is an instruction that describes a task"
TAIL = "Write a response that appropriately completes the request.\n\n### Instruction:\n"
TEMPLATE = Template(prompt="Q: {question}\nA: ", response="{answer}!")
USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def sample(fields: dict, template: Template | None = None, required: bool = True, untyped=False) -> TextSample:
    return recognise(Row("rows.jsonl", 7, fields, untyped), template, required)


def complaint(fields: dict, template: Template | None = None, required: bool = True) -> str:
    with pytest.raises(RowError) as caught:
        sample(fields, template, required)
    assert (caught.value.file, caught.value.row) == ("rows.jsonl", 7)
    own = fields.get("id")
    assert caught.value.id == (
        str(own) if isinstance(own, (str, int)) and str(own).strip() and own is not True else None
    )
    return caught.value.reason


def test_alpaca_without_input():
    found = sample({"id": "a1", "instruction": "Add {1}.", "output": "2", "source": "math", "poisoned": False})
    assert found == TextSample(
        id="a1",
        shape="alpaca",
        prompt=f"{HEAD}. {TAIL}Add {{1}}.\n\n### Response: ",
        response="2",
        turns=(),
        has_response=True,
        content_hash=found.content_hash,
        metadata={"source": "math", "poisoned": False},
        file="rows.jsonl",
        row=7,
    )


def test_alpaca_with_input():
    found = sample({"instruction": "Add.", "input": "1 and 1", "output": "2"})
    middle = ", paired with an input that provides further context. "
    assert found.prompt == f"{HEAD}{middle}{TAIL}Add.\n\n### Input:\n1 and 1\n\n### Response: "


@pytest.mark.parametrize("answer", ["completion", "response"])
def test_completion_is_verbatim(answer):
    found = sample({"prompt": "{a} ", answer: " b\n", "n": 1})
    assert (found.shape, found.prompt, found.response, found.metadata) == (
        "completion",
        "{a} ",
        " b\n",
        {"n": 1},
    )


def test_text():
    found = sample({"text": "abc", "prompt": "metadata here"})
    assert (found.shape, found.prompt, found.response) == ("text", "", "abc")
    assert found.metadata == {"prompt": "metadata here"}
    assert found.has_response


def test_chat():
    parts = [{"type": "text", "text": "Hel"}, {"text": "lo"}]
    found = sample({"messages": [USER, {"role": "assistant", "content": parts, "name": None}], "text": "other"})
    assert (found.shape, found.turns) == ("chat", (Turn("user", "Hi"), Turn("assistant", "Hello")))
    assert (found.prompt, found.response, found.has_response) == ("", "Hello", True)
    assert found.metadata == {"text": "other"}


def test_chat_that_ends_with_the_user():
    training = sample({"messages": [USER, ASSISTANT, USER]})
    assert (training.has_response, training.response, len(training.turns)) == (False, "", 3)
    query = sample({"messages": [USER, {"role": "assistant", "content": " "}]}, required=False)
    assert (query.has_response, query.turns) == (False, (Turn("user", "Hi"),))


def test_template_takes_any_fields():
    found = sample({"question": "1+1", "answer": 2, "level": "easy", "text": "unused"}, TEMPLATE)
    assert (found.shape, found.prompt, found.response) == ("template", "Q: 1+1\nA: ", "2!")
    assert found.metadata == {"level": "easy", "text": "unused"}


def test_template_with_input():
    template = Template(prompt="{q}", prompt_with_input="{q} ({input})", response="{a}")
    assert sample({"q": "x", "a": "y"}, template).prompt == "x"
    assert sample({"q": "x", "input": "", "a": "y"}, template).prompt == "x"
    with_input = sample({"q": "x", "input": "z", "a": "y"}, template)
    assert (with_input.prompt, with_input.metadata) == ("x (z)", {})
    assert sample({"q": "x", "a": "y"}, Template(prompt="{q}{input}", response="{a}")).prompt == "x"


def test_malformed_template_is_a_setting_error():
    with pytest.raises(SettingError, match="cannot be used"):
        sample({"a": "b"}, Template(prompt="{a.b}", response="{a}"))


@pytest.mark.parametrize(
    ("fields", "template"),
    [
        ({"instruction": "x"}, None),
        ({"instruction": "x", "output": " \n"}, None),
        ({"prompt": "x"}, None),
        ({"prompt": "x", "response": ""}, None),
        ({"messages": [USER]}, None),
        ({"question": "x"}, TEMPLATE),
        ({"question": "x", "answer": ""}, TEMPLATE),
    ],
)
def test_response_may_be_missing_from_queries_only(fields, template):
    assert "a training row needs a response" in complaint({"id": 3, **fields}, template)
    found = sample(fields, template, required=False)
    assert (found.has_response, found.response) == (False, "")


def test_query_without_response_has_the_hash_of_one_with_an_empty_response():
    assert sample({"prompt": "x"}, required=False) == sample({"prompt": "x", "completion": " "}, required=False)


def nested(levels: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"instruction": "x", "output": 3}, "field 'output' is a number; it must be text"),
        ({"instruction": ["x"], "output": "3"}, "field 'instruction' is a list; it must be text"),
        ({"instruction": "x", "input": {}, "output": "3"}, "field 'input' is an object; it must be text"),
        ({"prompt": "x", "completion": True}, "field 'completion' is true or false; it must be text"),
        ({"text": b"x"}, "field 'text' is binary data; it must be text"),
        ({"text": datetime.date(2020, 1, 1)}, "field 'text' is a date or time; it must be text"),
        ({"text": " "}, "field 'text' is empty; a training row needs a response"),
        ({"text": "a\ud800"}, "field 'text' holds half a character (\\ud800); repair the text"),
        ({"text": "a", "m": ["\udfff"]}, "field 'm' holds half a character (\\udfff); repair the text"),
        ({"messages": "hi"}, "field 'messages' is text; it must be a list of {role, content}"),
        ({"messages": []}, "field 'messages' is empty; a chat needs at least one message"),
        (
            {"messages": [USER, "x"]},
            "field 'messages', message 2 is text; it must be an object with role and content",
        ),
        (
            {"messages": [{"role": 1, "content": "x"}]},
            "field 'messages', message 1: role is a number; it must be a name such as user or assistant",
        ),
        (
            {"messages": [{"role": "user"}]},
            "field 'messages', message 1: content is missing; it must be text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "text": "x"}]}]},
            "field 'messages', message 1: content has a part that is not text; only text can be used",
        ),
        (
            {"messages": [{"role": "assistant", "content": "a", "train": False}]},
            "field 'messages': all of the assistant's have weight 0, so that no token is a target",
        ),
        (
            {"messages": [{"role": "user", "content": "a", "weight": 1}]},
            "field 'messages', message 1: weight makes a target of the message of 'user'; "
            "only the assistant's can be, unless all tokens are, with --targets all",
        ),
        (
            {"messages": [{"role": "assistant", "content": "a", "train_detail": []}]},
            "field 'messages', message 1: field 'train_detail' chooses targets in a way that cannot be done; "
            "leave it out",
        ),
        (
            {"messages": [{"role": "assistant", "content": "a"}], "tools": {"name": "f"}},
            "field 'tools' is an object; it must be a list of objects",
        ),
        (
            {"messages": [{"role": "assistant", "content": "a"}], "functions": [{}]},
            "field 'functions' is an old form that no chat template renders; write it as 'tools'",
        ),
        (
            {"messages": [{"role": "assistant", "content": "a"}], "chat_template_kwargs": {"tokenize": True}},
            "field 'chat_template_kwargs' cannot set 'tokenize'; leave it out",
        ),
        (
            {"text": "a", "deep": nested(200)},
            "field 'deep' is nested more than 100 levels deep; make it flatter",
        ),
        (
            {"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]},
            "field 'messages', message 1: weight is 0.5; it must be 0 or 1, or true or false",
        ),
        (
            {"id": "", "text": "x"},
            "field 'id' is empty; give each row an id of its own, or leave the field out",
        ),
        ({"id": 1.0, "text": "x"}, "field 'id' is a number; an id is text or a whole number"),
        ({"id": True, "text": "x"}, "field 'id' is true or false; an id is text or a whole number"),
        (
            {"id": 5, "frage": "x", "antwort": "y"},
            "its fields ('id', 'frage', 'antwort') have no known shape; known are messages; "
            "instruction + output (+ input); prompt + completion (or response); text; or give a --template",
        ),
        (
            {},
            "its fields (none) have no known shape; known are messages; "
            "instruction + output (+ input); prompt + completion (or response); text; or give a --template",
        ),
    ],
)
def test_complaints(fields, reason):
    assert (
        complaint({"id": "r1", **fields} if reason.startswith("field") and "'id'" not in reason else fields)
        == reason
    )


def test_template_complaints():
    missing = complaint({"id": "r1", "answer": "x"}, TEMPLATE)
    assert missing == "field 'question' is missing; the template prompt needs it"
    wrong = complaint({"question": ["x"], "answer": "x"}, TEMPLATE)
    assert wrong == "field 'question' is a list; it must be text"


def test_id_may_be_a_number_or_absent():
    assert sample({"id": 12, "text": "x"}).id == "12"
    assert sample({"id": None, "text": "x"}) == sample({"text": "x"})
    canonical = json.dumps(["text", {"text": "x"}], sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    assert (sample({"text": "x"}).id, sample({"text": "x"}).content_hash) == (digest[:16], digest[:32])


def test_metadata_becomes_json():
    moment = datetime.datetime(2020, 1, 2, 3, 4, tzinfo=datetime.UTC)
    fields = {
        "when": moment,
        "day": moment.date(),
        "price": decimal.Decimal("1.50"),
        "count": decimal.Decimal("3"),
        "bytes": [b"abc", b"\xff"],
        "number": float("nan"),
        "large": float("inf"),
        "nested": {1: (None, {"x"})},
        "other": datetime.timedelta(days=1),
        "null": None,
        "cell": "007",
    }
    expected = {
        "when": "2020-01-02T03:04:00+00:00",
        "day": "2020-01-02",
        "price": 1.5,
        "count": 3,
        "bytes": ["abc", "/w=="],
        "number": None,
        "large": "inf",
        "nested": {"1": [None, ["x"]]},
        "other": "1 day, 0:00:00",
        "cell": "007",
    }
    found = sample({"text": "x", **fields}).metadata
    assert found == expected
    assert json.loads(json.dumps(found, allow_nan=False)) == expected


def test_cells_of_untyped_rows_get_their_plain_type_as_metadata_only():
    cells = {"a": "1", "b": "-1.50", "c": "true", "d": "False", "e": "007", "f": "1e5", "g": "+1", "h": "nan"}
    cells |= {"i": "1" * 30, "j": "1e999", "k": "٣"}
    found = sample({"id": "007", "text": "17", **cells}, untyped=True)
    assert (found.id, found.response) == ("007", "17")
    types = {"a": 1, "b": -1.5, "c": True, "d": False, "e": "007", "f": 1e5, "g": "+1", "h": "nan"}
    assert found.metadata == types | {"i": float("1" * 30), "j": "1e999", "k": "٣"}
    assert [type(value) for value in list(found.metadata.values())[:4]] == [int, float, bool, bool]
    assert sample({"text": "17", "a": "1"}).metadata == {"a": "1"}


texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
alpaca = st.fixed_dictionaries({"instruction": texts, "output": texts}, optional={"input": texts})
metadata = st.dictionaries(
    st.text(st.characters(codec="utf-8")).map("m{}".format), st.integers() | texts, max_size=3
)


@settings(max_examples=60, deadline=None)
@given(fields=alpaca, extra=metadata, data=st.data())
def test_content_hash_depends_on_text_alone(fields, extra, data):
    plain = sample(fields)
    shuffled = dict(data.draw(st.permutations(list({**fields, **extra}.items()))))
    other = sample({**shuffled, "id": "own"})
    assert other.content_hash == plain.content_hash
    assert (other.id, other.metadata) == ("own", extra)
    if "input" not in fields:
        assert sample({**fields, "input": ""}).content_hash == plain.content_hash
        assert sample({**fields, "input": None}).content_hash == plain.content_hash


@settings(max_examples=60, deadline=None)
@given(first=alpaca, second=alpaca)
def test_different_text_has_a_different_hash(first, second):
    assert (sample(first).content_hash == sample(second).content_hash) == (first == second)


def test_shape_is_part_of_the_hash():
    assert sample({"text": "x"}).content_hash != sample({"prompt": "", "completion": "x"}).content_hash
    assert sample({"prompt": "a", "response": "b"}).id == sample({"prompt": "a", "completion": "b"}).id
