import json

import pytest
from hypothesis import given, strategies as st

from rapidin.errors import SettingError
from rapidin.settings.store_settings import Template
from rapidin.text import ALPACA, load_template
from rapidin.text.templates import named_fields, render


def test_load(tmp_path):
    path = tmp_path / "template.json"
    path.write_text('{"prompt": "Q: {question} {{x}}\\n", "response": "{answer}", "add_eos": false}')
    template = load_template(path)
    assert template == Template(prompt="Q: {question} {{x}}\n", response="{answer}", add_eos=False)
    assert render(template.prompt, {"question": "{y}"}) == "Q: {y} {x}\n"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "broken JSON"),
        ("[]", "is not a JSON object with the keys prompt, response"),
        ('{"prompt": "x"}', "key 'response': field required"),
        ('{"prompt": 1, "response": "{a}"}', "key 'prompt': input should be a valid string"),
        ('{"prompt": "x", "response": "{a}", "eos": true}', "unknown key 'eos'; known are prompt, response"),
        ('{"prompt": "{a", "response": "{a}"}', "expected '}' before end of string; write {{ and }}"),
        ('{"prompt": "a}", "response": "{a}"}', "Single '}' encountered"),
        ('{"prompt": "{a.b}", "response": "{a}"}', "{a.b} cannot be used; write only a field's name"),
        ('{"prompt": "{a[0]}", "response": "{a}"}', "{a[0]} cannot be used"),
        ('{"prompt": "{}", "response": "{a}"}', "{} cannot be used"),
        ('{"prompt": "{0}", "response": "{a}"}', "{0} cannot be used"),
        ('{"prompt": "{a!r}", "response": "{a}"}', "{a!r} cannot be used"),
        ('{"prompt": "", "response": "{a:>9}"}', "{a:>9} cannot be used"),
        ('{"prompt": "", "prompt_with_input": "{", "response": "{a}"}', "write {{ and }}"),
        ('{"prompt": "{a}", "response": "yes"}', "response 'yes' names no field"),
    ],
)
def test_complaints_are_one_line_that_names_the_file(tmp_path, content, complaint):
    path = tmp_path / "template.json"
    path.write_text(content)
    with pytest.raises(SettingError) as caught:
        load_template(path)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(SettingError, match=r"missing.json: cannot be read: No such file"):
        load_template(tmp_path / "missing.json")
    with pytest.raises(SettingError, match=r"cannot be read: Is a directory"):
        load_template(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(SettingError, match=r"latin.json: is not valid UTF-8"):
        load_template(tmp_path / "latin.json")


def test_alpaca_fields():
    assert named_fields(ALPACA.prompt) == ("instruction",)
    assert named_fields(ALPACA.prompt_with_input) == ("instruction", "input")
    assert named_fields(ALPACA.response) == ("output",)


@given(
    before=st.text(),
    after=st.text(),
    value=st.text(),
)
def test_rendering_is_that_of_format_strings(before, after, value):
    escaped = before.replace("{", "{{").replace("}", "}}") + "{x}" + after.replace("{", "{{").replace("}", "}}")
    assert render(escaped, {"x": value}) == before + value + after == escaped.format(x=value)


def test_template_survives_json():
    assert Template.model_validate(json.loads(ALPACA.model_dump_json())) == ALPACA
