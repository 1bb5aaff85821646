"""The data of an experiment: queries that are asked, and training samples that should be found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapidin.errors import DataFileError, RowError, SettingError, StoreEmptyError
from rapidin.evaluation.methods import AskedQuery, TrainingSet
from rapidin.model import StoreModel
from rapidin.search import read_queries
from rapidin.settings import Answers
from rapidin.storage import Condition, Store, parse
from rapidin.text import TextSample, tokens_in_spans


class Label:
    """Mark of the samples that should be found: a field with a value, such as ``poisoned=true``.

    Args:
        expression: filter ``FIELD=VALUE``.

    Raises:
        SettingError: the expression does not have this form.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self._condition: Condition = parse(expression)
        if self._condition.operator != "=" or self._condition.negated:
            raise SettingError(
                f"--label {expression!r} cannot be used: write FIELD=VALUE, such as 'poisoned=true'"
            )

    def excludes(self, metadata: Mapping[str, Any]) -> bool:
        """Tell whether a query has another value of the field; a query without the field is not excluded."""
        value = metadata.get(self._condition.field)
        return value is not None and not self._condition.matches(value)


@dataclass(frozen=True, slots=True)
class QueryRows:
    """The queries of a file that an evaluation asks.

    Attributes:
        samples: queries as in the file, without a response if the model shall answer.
        spans: parts of each query's generation that are asked about; empty unless wanted.
        left_out: number of rows that carry another value of the label.
        not_attacked: number of rows whose field says that their answer does not show the behaviour.
    """

    samples: tuple[TextSample, ...]
    spans: tuple[tuple[str, ...], ...]
    left_out: int
    not_attacked: int = 0


def read_query_rows(
    file: Path,
    store: Store,
    label: Label,
    answers: Answers = "file",
    limit: int | None = None,
    span_of: Callable[[TextSample], tuple[str, ...]] = lambda _: (),
) -> QueryRows:
    """Read the queries that an evaluation asks.

    Args:
        file: data file in the row shapes that ingest takes.
        store: store whose settings say how rows are read.
        label: label; queries that carry another value are left out.
        answers: source of the generations; with ``model`` the rows' own responses are dropped.
        limit: maximum number of queries; the first ones are kept.
        span_of: function that gives the parts of a query's generation that are asked about.

    Raises:
        DataFileError: the file cannot be read, or no query is left.
        RowError: a row cannot be used.
    """
    kept: list[TextSample] = []
    left_out = 0
    for sample in read_queries(file, store.settings.text):
        if label.excludes(sample.metadata):
            left_out += 1
        elif limit is None or len(kept) < limit:
            kept.append(_unanswered(sample) if answers == "model" else sample)
    if not kept:
        raise DataFileError(
            f"{file}: every row has another value than {label.expression}, so no query is left: give "
            "other queries or another --label"
        )
    return QueryRows(tuple(kept), tuple(span_of(sample) for sample in kept), left_out)


def span_reader(field: str, given: Sequence[str]) -> Callable[[TextSample], tuple[str, ...]]:
    """Make the function that tells which words of a query are wrong.

    Args:
        field: metadata field of a query that holds its wrong words, a text or a list of texts.
        given: wrong words of all queries; if there are any, `field` is not read.
    """

    def span_of(sample: TextSample) -> tuple[str, ...]:
        if given:
            return tuple(given)
        value = sample.metadata.get(field)
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not texts or not all(_is_text(text) for text in texts):
            found = "has no field" if value is None else "has no text, or list of texts, in its field"
            raise RowError(
                sample.file,
                sample.row,
                f"{found} {field!r} that names its wrong words: add it, or give --span or --span-field",
                sample.id,
            )
        return tuple(texts)

    return span_of


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _unanswered(sample: TextSample) -> TextSample:
    """The sample without its response; in a chat the model then answers the user's last turn."""
    turns = sample.turns
    if turns and sample.has_response:
        turns = turns[:-1]
    return replace(sample, response="", has_response=False, turns=turns)


def answered_queries(
    model: StoreModel,
    query_rows: QueryRows,
    max_new_tokens: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[AskedQuery]:
    """Let the model answer the queries without a response, and encode all of them whole.

    Raises:
        RowError: a row cannot be used.
    """
    found = []
    for number, sample in enumerate(query_rows.samples, start=1):
        found.append(AskedQuery(*model.prepared(sample, max_new_tokens)))
        if on_progress is not None:
            on_progress(number, len(query_rows.samples))
    return found


def narrowed_to_spans(model: StoreModel, whole: Sequence[AskedQuery], query_rows: QueryRows) -> list[AskedQuery]:
    """Make queries whose only targets are the tokens of their spans.

    Raises:
        RowError: a span does not occur in its generation.
    """
    found = []
    for one, sample, spans in zip(whole, query_rows.samples, query_rows.spans, strict=True):
        places = model.token_spans(one.encoded)
        try:
            tokens = tokens_in_spans(one.encoded, places, spans)
        except SettingError as error:
            raise RowError(sample.file, sample.row, str(error), sample.id) from error
        query = replace(one.query, targets=sum(tokens.targets), spans=tokens.spans)
        found.append(AskedQuery(query, replace(one.encoded, targets=tokens.targets)))
    return found


def training_set(store: Store, model: StoreModel, where: Sequence[str]) -> TrainingSet:
    """Read the samples of a store that meet all filters, by ascending id.

    Raises:
        StoreEmptyError: no sample meets them.
        FilterError: a filter cannot be read.
    """
    samples = sorted(store.list(where), key=lambda sample: sample.id)
    if not samples:
        raise StoreEmptyError(
            f"{store.path}: no sample meets --where {' and '.join(where)}: give other filters"
            if where
            else f"{store.path} holds no samples: ingest some first"
        )
    return TrainingSet(samples, model)


def relevant(store: Store, training: TrainingSet, label: Label, where: Sequence[str]) -> NDArray[np.bool_]:
    """Tell whether each training sample carries the label, bool [n].

    Raises:
        SettingError: no sample carries the label, or all do.
        FilterError: no sample has the field.
    """
    ids = {sample.id for sample in store.list([*where, label.expression])}
    marked = np.array([sample.id in ids for sample in training.samples], dtype=bool)
    if marked.all() or not marked.any():
        few = "every" if len(marked) and marked.all() else "no"
        raise SettingError(
            f"{store.path}: {few} sample of {len(marked):,} meets --label {label.expression}: give a field that "
            "tells the samples that should be found from the others; 'rapidin list' shows them"
        )
    return marked
