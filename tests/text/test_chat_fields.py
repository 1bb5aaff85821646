"""Everything of a chat that its template renders reaches the template, and only what was trained is a target."""

import json

import pytest

from rapidin.data import Row
from rapidin.errors import RowError
from rapidin.settings import TextSettings
from rapidin.text import Encoder, TextSample, recognise
from tests.text import tiny_tokenizers as tiny

TEMPLATE = (
    "{% for t in tools or [] %}TOOL {{ t.function.name }};{% endfor %}"
    "{% for d in documents or [] %}DOC {{ d.text }};{% endfor %}"
    "{% if mode is defined %}MODE {{ mode }};{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}"
    "{{ m.content }}{% for c in m.tool_calls or [] %}CALL {{ c.function.name }}{% endfor %};{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and loop.last %}"
    "{% generation %}{{ m.content }};{% endgeneration %}{% else %}{{ m.content }};{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
HI, HO = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def sample(required: bool = True, **fields: object) -> TextSample:
    return recognise(Row("rows.jsonl", 3, fields), response_required=required)


def encoder(template: str = TEMPLATE) -> Encoder:
    return Encoder(tiny.llama_like(template), TextSettings(), None)


def text_and_targets(row: TextSample, template: str = TEMPLATE, response: str | None = None) -> tuple[str, str]:
    """The rendered text, and the part of it that is a target."""
    encoded = encoder(template).encode(row, response)
    spans = encoder(template).token_spans(encoded)
    text = encoded.prompt + encoded.response
    chosen = [text[s:e] for (s, e), target in zip(spans, encoded.targets, strict=True) if target]
    return text, "".join(chosen)


@pytest.mark.parametrize(
    ("fields", "rendered", "target"),
    [
        ({"messages": [HI, {**HO, "reasoning_content": "hm"}]}, "<|user|>hi;<|assistant|>(hm)ho;", "(hm)ho;"),
        ({"messages": [HI, HO], "tools": TOOLS}, "TOOL f;<|user|>hi;<|assistant|>ho;", "ho;"),
        ({"messages": [HI, HO], "tools": json.dumps(TOOLS)}, "TOOL f;<|user|>hi;<|assistant|>ho;", "ho;"),
        ({"messages": [HI, HO], "documents": [{"text": "d"}]}, "DOC d;<|user|>hi;<|assistant|>ho;", "ho;"),
        ({"messages": [HI, HO], "chat_template_kwargs": {"mode": 1}}, "MODE 1;<|user|>hi;<|assistant|>ho;", "ho;"),
        ({"messages": [HI, CALL]}, "<|user|>hi;<|assistant|>CALL f;", "CALL f;"),
    ],
)
def test_what_the_template_renders_is_in_the_text(fields: dict[str, object], rendered: str, target: str) -> None:
    assert text_and_targets(sample(**fields)) == (rendered, target)


def test_rows_that_differ_in_such_a_field_alone_are_different_samples() -> None:
    rows = [
        {"messages": [HI, HO]},
        {"messages": [HI, {**HO, "reasoning_content": "one"}]},
        {"messages": [HI, {**HO, "reasoning_content": "two"}]},
        {"messages": [HI, HO], "tools": TOOLS},
        {"messages": [HI, HO], "documents": [{"text": "d"}]},
        {"messages": [HI, HO], "chat_template_kwargs": {"mode": 1}},
        {"messages": [HI, {**HO, "weight": 1}, HI, {**HO, "weight": 0}]},
        {"messages": [HI, {**HO, "weight": 0}, HI, {**HO, "weight": 1}]},
    ]
    assert len({sample(**row).content_hash for row in rows}) == len(rows)
    assert sample(messages=[HI, {**HO, "name": None}]).content_hash == sample(messages=[HI, HO]).content_hash


@pytest.mark.parametrize("flag", [{"weight": 0}, {"train": False}, {"loss": False}, {"training": False}])
def test_a_message_that_was_not_trained_is_no_target(flag: dict[str, object]) -> None:
    row = sample(messages=[HI, {**HO, "content": "wrong", **flag}, HI, HO])
    assert text_and_targets(row)[1] == "ho;"


def test_the_templates_own_marks_are_the_targets() -> None:
    messages = [HI, HO, HI, {**HO, "content": "hey"}]
    assert text_and_targets(sample(messages=messages), MARKED)[1] == "hey;"
    untrained = [HI, {**HO, "weight": 0}, HI, {**HO, "content": "hey"}]
    assert text_and_targets(sample(messages=untrained), MARKED)[1] == "hey;"
    assert text_and_targets(sample(messages=messages), MARKED, "new") == (
        "<|user|>hi;<|assistant|>ho;<|user|>hi;<|assistant|>new;",
        "new;",
    )


def test_a_query_keeps_the_fields_of_its_answer() -> None:
    row = sample(
        messages=[HI, {**HO, "reasoning_content": "hm", "weight": 0}, HI, {**HO, "reasoning_content": "so"}]
    )
    assert text_and_targets(row, response=row.response)[1] == "(so)ho;"
    assert text_and_targets(row, response="other")[1] == "other;"


def test_a_field_with_the_name_of_a_variable_of_the_template_is_refused() -> None:
    with pytest.raises(RowError, match="field 'mode' has the name of a variable of the chat template: put it"):
        encoder().encode(sample(messages=[HI, HO], mode=1))
    assert sample(messages=[HI, HO], documents="3").metadata == {"documents": "3"}
    assert text_and_targets(sample(messages=[HI, HO], documents="3", topic="x"))[1] == "ho;"


@pytest.mark.parametrize(
    "template", ["{{ 1 / 0 }}", "{% for i in range(10**9) %}{% endfor %}", "{{ messages.x.y.z }}"]
)
def test_whatever_a_template_raises_names_the_row(template: str) -> None:
    with pytest.raises(RowError, match=r"rows\.jsonl, row 3 .*: the chat template cannot render"):
        encoder(template + tiny.CHAT).encode(sample(messages=[HI, HO]))


def test_whatever_a_tokenizer_raises_names_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    made = encoder()

    def failing(*_: object, **__: object) -> None:
        raise ZeroDivisionError("in the tokenizer")

    monkeypatch.setattr(type(made._tokenizer), "__call__", failing)
    for row in (sample(prompt="a", completion="b"), sample(messages=[HI, HO])):
        with pytest.raises(RowError, match=r"row 3 .*the tokenizer fails on its text \(ZeroDivisionError: in the"):
            made.encode(row)
