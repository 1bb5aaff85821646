"""Metadata conditions in SQL against `Condition.matches`, which reads one value at a time and knows no SQL."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from rapidin.storage import MetadataChange, Store
from rapidin.storage.catalog import metadata_sql
from rapidin.storage.filters.expressions import parse
from rapidin.storage.filters.indexed_values import LONGEST_TEXT, Kind, indexed_metadata
from tests.storage.stores import new_sample, random_vectors

OPERATORS = ["=", "==", "!=", "<", "<=", ">", ">=", "~", "!~"]
LONG = "long " * 60
NUMBERS = [
    *(
        0,
        1,
        -1,
        5,
        7,
        1000,
        2**53,
        2**53 + 1,
        2**63 - 1,
        -(2**63),
        2**63,
        -(2**63) - 1,
        2**64 + 1,
        10**30,
        10**290,
    ),
    *(0.0, -0.0, 1.0, 5.0, 0.1, -2.5, 1e3, 2.0**53, 2.0**63, -(2.0**63), 1e22, 1e30, 1e300, 5e-324, 1.7e308),
]
TEXTS = [
    *(
        "",
        "a",
        "A",
        "5",
        "5.0",
        "007",
        "-0.0",
        "true",
        "True",
        "null",
        "it's",
        'say "hi"',
        "a\0b",
        "a\0",
        "\0",
        "é",
    ),
    *("😀", "😀a", "\uffff", "%", "_", "\\", "[1]", '{"a":1}', "a b", "new\nline", "x" * LONGEST_TEXT),
    *("x" * (LONGEST_TEXT + 1), LONG, LONG + "!", "😀" * LONGEST_TEXT),
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(TEXTS),
    st.text(st.characters(codec="utf-8"), max_size=5),
)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=3),
    st.dictionaries(st.sampled_from(["a", 'b"', "é"]), scalars, max_size=2),
    st.just([list(range(100))]),
)
LITERALS = [
    *("1e3", "007", "+5", "-0", "-0.0", "0", ".5", "5.", "5.0", "1E400", "-1e400", "1e22", "1e+22", "00", "-"),
    *(
        "true",
        "True",
        "FALSE",
        "false",
        "t",
        "null",
        "Null",
        "[1]",
        "[",
        "{",
        '{"a":1}',
        "x",
        "long ",
        "",
        "\0",
        "a\0",
    ),
    *(
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551617",
        "1" + "0" * 30,
    ),
    *("9223372036854775809", "-9223372036854775808", "9007199254740993", "9007199254740992.0", "1" * 301),
    *("^$", "^.$", "[0-9]", "a|5", "é", "(?i)A", "long long", "e", "😀", LONG, "x" * LONGEST_TEXT, "\\.0$", " "),
]


def json_text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def expression(field: str, symbol: str, literal: str, in_quotes: bool) -> str:
    quoted = '"' + literal.replace("\\", "\\\\").replace('"', '\\"') + '"'
    bare = literal == literal.strip() and literal[:1] not in ("'", '"', "=", "~")
    return f'metadata."{field}" {symbol} {literal if bare and not in_quotes else quoted}'


def compiles(pattern: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def check(store: Store, metadatas: list[dict], where: list[str]) -> None:
    conditions = [parse(text) for text in where]
    meant = [
        f"{i:03}"
        for i, metadata in enumerate(metadatas)
        if all(condition.matches(metadata.get(condition.field)) for condition in conditions)
    ]
    assert [sample.id for sample in store.list(where)] == meant, where
    assert store.count(where) == len(meant), where
    with store.snapshot() as snapshot:
        assert snapshot.scores(random_vectors(1), where)[0] == meant, where
    assert [sample.id for sample in store.list(where, limit=2, offset=1)] == meant[1:3], where


def made(path: Path, empty: Path, metadatas: list[dict]) -> Store:
    """A store of those samples, which has two dead ones as well."""
    shutil.copytree(empty, path)
    store = Store.open(path)
    samples = [new_sample(f"{i:03}", metadata=metadata) for i, metadata in enumerate(metadatas)]
    with store.writer() as writer:
        dead = [new_sample(id, metadata={"f": "a", "g": 5}) for id in ("000", "dead")]
        writer.commit(dead, random_vectors(2))
        writer.commit(samples, random_vectors(len(samples)))
    store.delete(["dead"])
    return store


@pytest.mark.parametrize("few", [0.0, 0.25, 1.0])
@given(
    metadatas=st.lists(st.fixed_dictionaries({}, optional={"f": values, "g": values}), min_size=1, max_size=12),
    data=st.data(),
)
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_sql_agrees_with_matches(tmp_path_factory, empty_template, few: float, metadatas, data) -> None:
    """Whichever way of finding the samples is taken, which depends on how many there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata_sql, "_FEW", few)
        with made(tmp_path_factory.mktemp("agree") / "store", empty_template, metadatas) as store:
            held = [value for metadata in metadatas for value in metadata.values()]
            literals = st.one_of(
                st.sampled_from(LITERALS), values.map(json_text), st.sampled_from(held or [0]).map(json_text)
            )
            for _ in range(8):
                where = []
                for _ in range(data.draw(st.sampled_from([1, 1, 1, 2]))):
                    symbol, literal = data.draw(st.sampled_from(OPERATORS)), data.draw(literals)
                    if symbol.endswith("~") and not compiles(literal):
                        literal = re.escape(literal)
                    field = data.draw(st.sampled_from(["f", "g"] if any("g" in m for m in metadatas) else ["f"]))
                    where.append(expression(field, symbol, literal, data.draw(st.booleans())))
                check(store, metadatas, where)
            assert store.verify().ok


@pytest.mark.parametrize("few", [0.0, 1.0])
@pytest.mark.slow
def test_every_value_with_every_literal(tmp_path, empty_template, few: float, monkeypatch) -> None:
    monkeypatch.setattr(metadata_sql, "_FEW", few)
    held = [None, True, False, [], {}, [1, LONG], {"a": -0.0}, *NUMBERS, *TEXTS]
    metadatas = [{"f": value} for value in held] + [{}]
    literals = dict.fromkeys([*LITERALS, *map(json_text, held)])
    with made(tmp_path / "store", empty_template, metadatas) as store:
        for literal in literals:
            for symbol in OPERATORS:
                for in_quotes in (False, True):
                    right = re.escape(literal) if symbol.endswith("~") and not compiles(literal) else literal
                    where = [expression("f", symbol, right, in_quotes)]
                    condition = parse(where[0])
                    meant = sum(condition.matches(metadata.get("f")) for metadata in metadatas)
                    assert store.count(where) == meant, where


def test_changed_metadata_is_what_filters_see(store: Store) -> None:
    with store.writer() as writer:
        writer.commit([new_sample("000", metadata={"f": 1, "g": "old"})], random_vectors(1))
        writer.update_metadata([MetadataChange.of(new_sample("000", metadata={"f": 2.5, "h": True}))])
    check(store, [{"f": 2.5, "h": True}], ["f > 2"])
    assert store.count(["g = old"]) == store.count(["f = 1"]) == 0
    assert store.count(["h = true", "g = null"]) == 1
    assert store.verify().ok


def test_kinds() -> None:
    metadata = {
        **{"int": 5, "float": 5.0, "zero": -0.0, "big": 2**63, "no": False, "text": "", "list": [1], "null": None},
        **{"long": "x" * 201, "long list": list(range(99)), "half": "\ud800"},
    }
    found = indexed_metadata(json.dumps(metadata))
    assert {name: tuple(value) for name, value in found.items()} == {
        "int": (Kind.NUMBER, 5, None),
        "float": (Kind.NUMBER, 5.0, None),
        "zero": (Kind.OTHER, None, None),
        "big": (Kind.OTHER, None, None),
        "no": (Kind.BOOLEAN, 0, None),
        "text": (Kind.TEXT, None, ""),
        "list": (Kind.TEXT, None, "[1]"),
        "long": (Kind.LONG_TEXT, None, None),
        "long list": (Kind.LONG_TEXT, None, None),
        "half": (Kind.OTHER, None, None),
    }
    assert type(found["float"].number) is float


@pytest.mark.parametrize("text", ["", "[1]", "5", "{", "[" * 100_000])
def test_metadata_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        indexed_metadata(text)
