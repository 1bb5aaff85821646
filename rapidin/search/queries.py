"""Queries as text samples, made of a bare prompt in the shape of the store's rows, or of the rows of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rapidin.data import read_rows
from rapidin.errors import RowError, SettingError
from rapidin.settings import Shape, TextSettings
from rapidin.text import ALPACA, TextSample, Turn, hash_of, named_fields, recognise, render

_ID = "0"
"""Id of a query that comes from no file."""


def query_of_prompt(prompt: str | None, generation: str | None, settings: TextSettings) -> TextSample:
    """Put a bare prompt into the shape of the store's rows, so that the model sees it as in training.

    A prompt that begins as the store's template does is taken as it is, because it was rendered already. The
    sample names no file and has the row number 0.

    Args:
        prompt: question, or the whole rendered prompt; None: the generation stands by itself.
        generation: answer; None: the model writes it.
        settings: settings of texts of the store.

    Raises:
        SettingError: there is neither prompt nor generation, one of them is empty or holds half a character (a
            prompt may be empty if the store's rows have none), or the store's template has several fields, which
            one text does not fill.
    """
    if prompt is None and generation is None:
        raise SettingError("nothing is asked: give a prompt, a generation, or both")
    if prompt is not None and not prompt.strip() and (generation is None or settings.shape != "text"):
        raise SettingError("--prompt is empty: give what the model was asked")
    if generation is not None and not generation.strip():
        raise SettingError("--generation is empty: give what the model answered, or leave it out to let it answer")
    for name, text in (("prompt", prompt), ("generation", generation)):
        _check_unicode(name, text or "")
    if prompt is None:
        return _completion("", generation)
    if settings.shape == "chat":
        return _chat(prompt, generation)
    template = settings.template or (ALPACA if settings.shape == "alpaca" else None)
    if template is None or _is_rendered(prompt, template.prompt, template.prompt_with_input):
        return _completion(prompt, generation)
    asked, answered = named_fields(template.prompt), named_fields(template.response)
    if len(asked) != 1 or len(answered) != 1:
        raise SettingError(
            f"--prompt fills one field, and this store's template has {', '.join((*asked, *answered))}: "
            "write the fields into a file and give it with --queries"
        )
    question = {asked[0]: prompt}
    answer = {} if generation is None else {answered[0]: generation}
    return _sample(
        "alpaca" if settings.template is None else "template",
        {**question, **answer},
        prompt=render(template.prompt, question),
        response=render(template.response, answer) if answer else "",
    )


def read_queries(file: Path, settings: TextSettings) -> Iterator[TextSample]:
    """Read the rows of a file of queries; the model answers those that have no response.

    Raises:
        DataFileError: the file cannot be read.
        RowError: a row has no known shape, or neither prompt nor response.
    """
    for row in read_rows([file]):
        query = recognise(row, settings.template, response_required=False)
        if not (query.prompt or query.turns or query.has_response):
            raise RowError(
                query.file,
                query.row,
                "asks nothing: its prompt is empty, and so is its response; write one of them",
                query.id,
            )
        yield query


def _completion(prompt: str, generation: str | None) -> TextSample:
    """Return the sample of a prompt and a response as they are."""
    text = {"prompt": prompt} if generation is None else {"prompt": prompt, "response": generation}
    return _sample("completion", text, prompt=prompt, response=generation or "")


def _chat(prompt: str, generation: str | None) -> TextSample:
    """Return the sample of a chat of one question, with the assistant's answer if it is known."""
    answer = () if generation is None else (Turn("assistant", generation),)
    turns = (Turn("user", prompt), *answer)
    messages = [[turn.role, turn.content] for turn in turns]
    return _sample("chat", {"messages": messages}, response=generation or "", turns=turns)


def _sample(
    shape: Shape, text: Mapping[str, object], *, response: str, prompt: str = "", turns: tuple[Turn, ...] = ()
) -> TextSample:
    return TextSample(
        id=_ID,
        shape=shape,
        prompt=prompt,
        response=response,
        turns=turns,
        has_response=bool(response),
        content_hash=hash_of(shape, text),
        metadata={},
        file="",
        row=0,
    )


def _check_unicode(name: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SettingError(
            f"the {name} holds half a character (\\u{ord(text[error.start]):04x}): repair the text"
        ) from error


def _is_rendered(prompt: str, *templates: str | None) -> bool:
    """Return whether a prompt begins with the text that a template puts before its first field."""
    beginnings = [template.partition("{")[0] for template in templates if template is not None]
    return any(beginning and prompt.startswith(beginning) for beginning in beginnings)
