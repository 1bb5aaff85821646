"""What is asked for: a bare prompt or the rows of a file, as text samples in the store's shape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rapidin.data import Row, read_rows
from rapidin.errors import RowError, SettingError
from rapidin.settings import TextSettings
from rapidin.text import ALPACA, TextSample, named_fields, recognise

COMMAND_LINE = "--prompt"
"""Stands for the file name in errors about a prompt that came from no file."""


def query_of_prompt(prompt: str | None, generation: str | None, settings: TextSettings) -> TextSample:
    """Put a bare prompt into the shape of the store's rows, so that the model sees it as in training.

    A prompt that begins as the store's template does was rendered already and is taken as it is.

    Args:
        prompt: what was asked, or the whole rendered prompt; None: nothing, the generation stands by itself.
        generation: what was answered, None if the model shall write it.
        settings: of the store.

    Raises:
        SettingError: there is neither, prompt or generation is empty (a prompt may be where the store's rows have
            none), or the store's template has several fields, so that one text does not fill it.
        RowError: the prompt cannot be used.
    """
    if prompt is None and generation is None:
        raise SettingError("nothing is asked: give a prompt, a generation, or both")
    if prompt is not None and not prompt.strip() and (generation is None or settings.shape != "text"):
        raise SettingError("--prompt is empty: give what the model was asked")
    if generation is not None and not generation.strip():
        raise SettingError("--generation is empty: give what the model answered, or leave it out to let it answer")
    if prompt is None:
        return recognise(Row(COMMAND_LINE, 1, {"prompt": "", "completion": generation}), None)
    row = Row(COMMAND_LINE, 1, _fields(prompt, generation, settings))
    template = settings.template if "prompt" not in row.fields else None
    return recognise(row, template, response_required=generation is not None)


def read_queries(file: Path, settings: TextSettings) -> Iterator[TextSample]:
    """Read the rows of a file of queries; those without a response get the model's own.

    Raises:
        DataFileError: the file cannot be read.
        RowError: a row has no known shape, or neither prompt nor response.
    """
    for row in read_rows([file]):
        query = recognise(row, settings.template, response_required=False)
        if not (query.prompt or query.turns or query.has_response):
            raise RowError(
                query.file, query.row, "asks nothing: its prompt is empty, and so is its response", query.id
            )
        yield query


def _fields(prompt: str, generation: str | None, settings: TextSettings) -> dict[str, Any]:
    fields: dict[str, Any]
    if settings.shape == "chat":
        messages = [{"role": "user", "content": prompt}]
        if generation is not None:
            messages.append({"role": "assistant", "content": generation})
        return {"messages": messages}
    template = settings.template or (ALPACA if settings.shape == "alpaca" else None)
    if template is None or _is_rendered(prompt, template.prompt, template.prompt_with_input):
        return {"prompt": prompt} if generation is None else {"prompt": prompt, "completion": generation}
    asked, answered = named_fields(template.prompt), named_fields(template.response)
    if len(asked) != 1 or len(answered) != 1:
        raise SettingError(
            f"--prompt fills one field, and this store's template has {', '.join((*asked, *answered))}: "
            "write the fields into a file and give it with --queries"
        )
    fields = {asked[0]: prompt}
    if generation is not None:
        fields[answered[0]] = generation
    return fields


def _is_rendered(prompt: str, *templates: str | None) -> bool:
    """Tell whether a prompt begins with the text that a template puts before its first field."""
    beginnings = [template.partition("{")[0] for template in templates if template is not None]
    return any(beginning and prompt.startswith(beginning) for beginning in beginnings)
