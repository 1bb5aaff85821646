"""Queries whose answers show a behaviour. Training samples are to blame for a behaviour only where it shows."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rapidin.errors import DataFileError, RowError, SettingError
from rapidin.evaluation.experiments.experiment_data import QueryRows
from rapidin.evaluation.methods import AskedQuery
from rapidin.records import BehaviourMark
from rapidin.text import TextSample

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The way to tell whether a query's answer shows the behaviour.

    Attributes:
        text: name of a field of the queries, or a regular expression.
        kind: ``field``: the answer shows the behaviour if the query's field is true; ``pattern``: it does if it
            contains a match.
    """

    text: str
    kind: BehaviourMark

    def marked(self, query_rows: QueryRows) -> QueryRows:
        """Keep the queries whose field is true; a regular expression keeps all until they are answered.

        Raises:
            RowError: the field holds something else than true and false.
            DataFileError: no query is left.
        """
        if self.kind == "pattern":
            return query_rows
        kept = [number for number, sample in enumerate(query_rows.samples) if self._is_true(sample)]
        if not kept:
            raise DataFileError(
                f"{query_rows.samples[0].file}: --attacked {self.text} is a field that is false in all "
                f"{len(query_rows.samples):,} queries, so no query is left: give another field, a regular "
                "expression, or other queries"
            )
        return replace(
            query_rows,
            samples=tuple(query_rows.samples[number] for number in kept),
            spans=tuple(query_rows.spans[number] for number in kept),
            not_attacked=len(query_rows.samples) - len(kept),
        )

    def shown(self, asked: Sequence[AskedQuery], file: str) -> list[AskedQuery]:
        """Keep the queries whose answers contain a match of the regular expression; a field keeps all of them.

        Args:
            asked: answered queries.
            file: data file of the queries, for the error.

        Raises:
            DataFileError: no query is left.
        """
        if self.kind == "field":
            return list(asked)
        kept = [query for query in asked if re.search(self.text, query.query.generation)]
        if not kept:
            raise DataFileError(
                f"{file}: none of {len(asked):,} answers matches the regular expression --attacked {self.text!r}, "
                f"so no query is left; the first answer is {asked[0].query.generation[:80]!r}: give another "
                "expression, the name of a field that every query has, or other queries"
            )
        return kept

    def _is_true(self, sample: TextSample) -> bool:
        value = sample.metadata[self.text]
        if isinstance(value, bool):
            return value
        raise RowError(
            sample.file,
            sample.row,
            f"its field {self.text!r}, named by --attacked, is {value!r}: write true or false",
            sample.id,
        )


def behaviour_of(text: str, samples: Sequence[TextSample]) -> Behaviour:
    """Read what a user gave: the name of a field that every query has, or else a regular expression.

    Args:
        text: text that the user gave.
        samples: queries, of which there is at least one.

    Raises:
        SettingError: the text is neither.
    """
    having = sum(text in sample.metadata for sample in samples)
    if having == len(samples):
        return Behaviour(text, "field")
    if having:
        logger.warning(
            "--attacked %s is read as a regular expression, because only %d of %d queries have such a field",
            text,
            having,
            len(samples),
        )
    try:
        re.compile(text)
    except re.error as error:
        raise SettingError(
            f"--attacked {text!r} is neither a field of every query nor a regular expression: {error}; give one "
            "of them, such as 'howdy|yeehaw'"
        ) from error
    if not text:
        raise SettingError("--attacked is empty and would match every answer: leave it out, or give an expression")
    return Behaviour(text, "pattern")
