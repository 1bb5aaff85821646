"""Prompt templates: the built-in template of Alpaca rows, and templates that users write as JSON.

A template's strings are Python format strings over a row's fields: ``{instruction}`` stands for a field, ``{{``
and ``}}`` for braces. Braces may hold the name of a field only, without attribute, index, conversion or format, so
a template has no access to Python objects.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from rapidin.errors import SettingError
from rapidin.settings import Template
from rapidin.support import shortened

_SHOWN_CHARACTERS = 60

ALPACA = Template(
    prompt=(
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response: "
    ),
    prompt_with_input=(
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response: "
    ),
    response="{output}",
)
"""The prompts of Stanford Alpaca, with the space after "Response:" that most trainings use."""

Parts = tuple[tuple[str, str | None], ...]
"""Pairs of a literal text and the name of the field that follows it; None if no field follows."""


@lru_cache(maxsize=64)
def split_format(text: str) -> Parts:
    """Divide a template's string into literal texts and names of fields.

    Raises:
        SettingError: a brace is not closed, or a pair of braces holds more than a field's name.
    """
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise SettingError(
            f"template {shortened(text, _SHOWN_CHARACTERS)!r}: {error}; write {{{{ and }}}} for "
            "braces that are text"
        ) from error
    for _, name, specification, conversion in parsed:
        if name is None:
            continue
        if not name or name.isdigit() or "." in name or "[" in name or specification or conversion:
            tail = (f"!{conversion}" if conversion else "") + (f":{specification}" if specification else "")
            raise SettingError(
                f"template {shortened(text, _SHOWN_CHARACTERS)!r}: {{{name}{tail}}} cannot be used; "
                "write only a field's name in braces, for example {instruction}"
            )
    return tuple((literal, name) for literal, name, _, _ in parsed)


def named_fields(text: str) -> tuple[str, ...]:
    """List the names of the fields in a template's string, each once, in order."""
    return tuple(dict.fromkeys(name for _, name in split_format(text) if name is not None))


def render(text: str, values: Mapping[str, str]) -> str:
    """Fill a template's string.

    Args:
        text: string of a template.
        values: text of every field that the string names.
    """
    return "".join(literal + ("" if name is None else values[name]) for literal, name in split_format(text))


def check_template(template: Template) -> None:
    """Check a template before any row is read.

    Raises:
        SettingError: a string of the template is malformed, or its response names no field.
    """
    for text in (template.prompt, template.prompt_with_input or ""):
        split_format(text)
    if not named_fields(template.response):
        raise SettingError(
            f"template response {shortened(template.response, _SHOWN_CHARACTERS)!r} names no field; "
            "write the field that holds the response, for example {output}"
        )


def load_template(path: Path) -> Template:
    """Read a template from a JSON file with the keys of `Template`.

    Raises:
        SettingError: the file cannot be read, is not JSON, has an unknown or missing key, or a malformed string.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingError(f"template {path}: is not valid UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise SettingError(f"template {path}: cannot be read: {error.strerror or error}") from error
    try:
        template = Template.model_validate_json(content)
        check_template(template)
    except ValidationError as error:
        raise SettingError(f"template {path}: {_first_complaint(error)}") from error
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from error
    return template


def _first_complaint(error: ValidationError) -> str:
    """Say what is wrong with a template's JSON."""
    complaint = error.errors()[0]
    known = ", ".join(Template.model_fields)
    if complaint["type"] == "json_invalid":
        return f"broken JSON: {' '.join(complaint['msg'].split())}"
    if not complaint["loc"]:
        return f"is not a JSON object with the keys {known}"
    key = complaint["loc"][0]
    if complaint["type"] == "extra_forbidden":
        return f"unknown key {key!r}; known are {known}"
    return f"key {key!r}: {complaint['msg'].lower()}"
