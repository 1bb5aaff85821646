"""A bare prompt as a text sample: it is what a row with the same text would be."""

import pytest

from rapidin.data.row import Row
from rapidin.errors import SettingError
from rapidin.search.queries import query_of_prompt
from rapidin.settings import Template, TextSettings
from rapidin.text import ALPACA, TextSample, recognise

TEMPLATE = Template(prompt="Q: {question}\nA:", response=" {answer}")


def settings(shape: str, template: Template | None = None) -> TextSettings:
    return TextSettings(shape=shape, template=template)


ROWS = {
    "completion": (settings("completion"), {"prompt": "Who?"}, "completion"),
    "alpaca": (settings("alpaca"), {"instruction": "Who?"}, "output"),
    "text": (settings("text"), {"prompt": "Who?"}, "completion"),
    "template": (settings("template", TEMPLATE), {"question": "Who?"}, "answer"),
}


@pytest.mark.parametrize("generation", [None, "We did."])
@pytest.mark.parametrize("kind", ROWS)
def test_a_prompt_becomes_what_a_row_becomes(kind: str, generation: str | None) -> None:
    texts, fields, answer = ROWS[kind]
    fields = {"id": "0", **fields} | ({} if generation is None else {answer: generation})
    wanted = recognise(Row("", 0, fields), texts.template, response_required=False)
    assert query_of_prompt("Who?", generation, texts) == wanted


@pytest.mark.parametrize("generation", [None, "We did."])
def test_a_prompt_becomes_a_chat(generation: str | None) -> None:
    messages = [{"role": "user", "content": "Who?"}]
    if generation is not None:
        messages.append({"role": "assistant", "content": generation})
    wanted = recognise(Row("", 0, {"id": "0", "messages": messages}), response_required=False)
    assert query_of_prompt("Who?", generation, settings("chat")) == wanted


def test_a_rendered_prompt_is_taken_as_it_is() -> None:
    rendered = ALPACA.prompt.replace("{instruction}", "Who?")
    found = query_of_prompt(rendered, "We did.", settings("alpaca"))
    assert (found.shape, found.prompt, found.response) == ("completion", rendered, "We did.")


def test_a_generation_stands_by_itself() -> None:
    found: TextSample = query_of_prompt(None, "We did.", settings("alpaca"))
    assert (found.prompt, found.response, found.has_response) == ("", "We did.", True)


def test_a_template_whose_field_is_called_prompt_is_filled() -> None:
    template = Template(prompt="Q: {prompt}\nA:", response=" {completion}")
    found = query_of_prompt("Who?", "We did.", settings("template", template))
    assert (found.prompt, found.response) == ("Q: Who?\nA:", " We did.")


@pytest.mark.parametrize(
    ("prompt", "generation", "message"),
    [
        (None, None, "nothing is asked"),
        ("", None, "--prompt is empty"),
        ("Who?", " ", "--generation is empty"),
        ("a\udce4", None, r"the prompt holds half a character \(\\udce4\)"),
        ("Who?", "a\udce4", r"the generation holds half a character \(\\udce4\)"),
    ],
)
def test_what_cannot_be_asked_is_refused(prompt: str | None, generation: str | None, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        query_of_prompt(prompt, generation, settings("alpaca"))


def test_a_template_of_several_fields_needs_a_file() -> None:
    template = Template(prompt="{context} {question}", response="{answer}")
    with pytest.raises(SettingError, match="context, question, answer: write the fields into a file"):
        query_of_prompt("Who?", None, settings("template", template))
