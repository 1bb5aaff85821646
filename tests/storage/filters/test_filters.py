"""Filter expressions against a plain Python reading of the rules."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from rapidin.errors import FilterError
from rapidin.storage import Store
from rapidin.storage.filters.expressions import parse
from tests.storage.stores import new_sample, plain, random_vectors, store_settings

OPERATORS = ["=", "==", "!=", "<", "<=", ">", ">=", "~", "!~"]

letters = st.text(st.characters(codec="utf-8"), max_size=5)
odd_texts = st.sampled_from(
    [
        "",
        "5",
        "5.0",
        "-3",
        "true",
        "null",
        "it's",
        'say "hi"',
        "a.b",
        "$[0]",
        "%",
        "\\",
        "a\0b",
        "é",
        "a b",
        "=~",
    ]
)
texts = st.one_of(odd_texts, letters)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([2**63, 2**63 - 1, -(2**63), 10**30, 0.1, 5.0, -2.5, 1e300, 5e-324]),
    texts,
)
values = st.one_of(scalars, st.lists(scalars, max_size=2), st.dictionaries(texts, scalars, max_size=2))
keys = st.one_of(odd_texts, st.sampled_from(["id", "metadata", "metadata.x", "text"]), letters)


def quoted(text: str, quote: str = '"') -> str:
    return quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote


def json_text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def as_number(text: str):
    try:
        return json.loads(text.removeprefix("+")) if re.fullmatch(r"[+-]?[0-9][0-9.eE+-]*", text) else None
    except json.JSONDecodeError:
        return None


def expected(value, operator: str, literal: str, is_quoted: bool) -> bool:
    """The rules, once more: `value` is None where the field is missing."""
    if operator == "!=":
        return not expected(value, "=", literal, is_quoted)
    if operator == "!~":
        return not expected(value, "~", literal, is_quoted)
    if value is None:
        return operator in ("=", "==") and literal == "null" and not is_quoted
    if operator == "~":
        return bool(re.search(literal, json_text(value)))
    left, right = json_text(value), literal
    if type(value) in (int, float) and not is_quoted and as_number(literal) is not None:
        left, right = value, as_number(literal)
    if type(value) is bool and not is_quoted:
        right = right.lower()
    return {
        "=": left == right,
        "==": left == right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[operator]


def asks_of_booleans_what_they_are_not(held: list, operator: str, literal: str, more: tuple = ()) -> bool:
    """It would match nothing, or everything, without a word."""
    only_booleans = bool(held) and all(type(value) is bool for value in held)
    return only_booleans and not operator.endswith("~") and literal.lower() not in ("true", "false", *more)


def is_expression(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, OverflowError):
        return False
    return True


@given(
    metadatas=st.lists(st.dictionaries(keys, values, max_size=3), min_size=1, max_size=5),
    data=st.data(),
)
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(metadatas=[{'a"b': 1}, {"a.b": 2}], data=None)
def test_metadata_filters_equal_the_rules(tmp_path_factory, empty_template, metadatas, data) -> None:
    known = sorted({key for metadata in metadatas for key in metadata})
    path = tmp_path_factory.mktemp("filters") / "store"
    shutil.copytree(empty_template, path)
    with Store.open(path) as store:
        with store.writer() as writer:
            samples = [new_sample(f"{i}", metadata=metadata) for i, metadata in enumerate(metadatas)]
            writer.commit(samples, random_vectors(len(samples)))
        for _ in range(10 if known else 0):
            key = known[0] if data is None else data.draw(st.sampled_from(known))
            present = [metadata[key] for metadata in metadatas if key in metadata]
            value = present[0] if data is None else data.draw(st.one_of(values, st.sampled_from(present)))
            operator = "=" if data is None else data.draw(st.sampled_from(OPERATORS))
            literal = json_text(value)
            if operator.endswith("~"):
                literal = literal if is_expression(literal) else re.escape(literal)
            quote = "'" if data is None else data.draw(st.sampled_from(['"', "'", ""]))
            if not quote and (literal != literal.strip() or literal[:1] in ("'", '"', "=", "~")):
                quote = '"'
            shown = quoted(literal, quote) if quote else literal
            space = "" if data is None else data.draw(st.sampled_from(["", " "]))
            expression = f"metadata.{quoted(key)}{space}{operator}{space}{shown}"
            some = [value for value in present if value is not None]
            if asks_of_booleans_what_they_are_not(some, operator, literal, ("null",)):
                with pytest.raises(FilterError, match="are true or false"):
                    store.list([expression])
                continue
            matching = [
                str(i)
                for i, metadata in enumerate(metadatas)
                if expected(metadata.get(key), operator, literal, bool(quote))
            ]
            assert [sample.id for sample in store.list([expression])] == matching, expression


@given(operator=st.sampled_from(OPERATORS), data=st.data())
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_built_in_filters_equal_the_rules(varied: Store, operator: str, data) -> None:
    field = data.draw(
        st.sampled_from(["id", "prompt", "response", "text", "file", "row", "tokens", "targets", "truncated"])
    )
    samples = varied.list()
    held = [sample.text if field == "text" else plain(sample)[field] for sample in samples]
    literal = json_text(data.draw(st.one_of(st.sampled_from(held), scalars)))
    if operator.endswith("~") and not is_expression(literal):
        literal = re.escape(literal)
    in_quotes = data.draw(st.booleans()) or literal != literal.strip() or literal[:1] in ("'", '"', "=", "~")
    shown = quoted(literal) if in_quotes else literal
    expression = f"sample.{field}{operator}{shown}"
    if field in ("row", "tokens", "targets") and operator[0] in "<>" and parse(expression).number is None:
        with pytest.raises(FilterError, match="is not a number"):  # compared as text it would mean something else
            varied.list([expression])
        return
    if asks_of_booleans_what_they_are_not(held, operator, literal):
        with pytest.raises(FilterError, match="are true or false"):
            varied.list([expression])
        return
    matching = [
        sample.id
        for sample, value in zip(samples, held, strict=True)
        if expected(value, operator, literal, in_quotes)
    ]
    assert [sample.id for sample in varied.list([expression])] == matching


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    samples = [
        new_sample("5", prompt="", response="5", row=5, truncated=True, metadata={"tokens": "mine"}),
        new_sample("it's", prompt='say "hi"\n', file="a b.jsonl", tokens=2**40),
        new_sample("é\0", prompt="a\0b", response="c\0d", row=2),
        new_sample("%", response="%", targets=0, metadata={"two words": 1, "x=y": 2, "tags": ["a", "é"]}),
    ]
    with Store.create(tmp_path_factory.mktemp("varied") / "store", store_settings()) as store:
        with store.writer() as writer:
            writer.commit(samples, random_vectors(4))
        yield store


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        (["id=5"], ["5"]),
        (["row = 5.0"], ["5"]),
        (["id=5.0"], []),
        (["sample.tokens=10"], ["5", "é\0", "%"]),
        (["metadata.tokens=mine"], ["5"]),
        (["metadata.tokens=null"], ["it's", "é\0", "%"]),
        (["two words = 1"], ["%"]),
        (['"two words" >= 1'], ["%"]),
        (['"x=y" == 2'], ["%"]),
        (["metadata.'x=y' != 2"], ["5", "it's", "é\0"]),
        (['tags=["a","é"]'], ["%"]),
        (["tags ~ é"], ["%"]),
        (["truncated=true"], ["5"]),
        (["truncated!=true", "row=1"], ["it's", "%"]),
        (['prompt ~ "^say \\"hi"'], ["it's"]),
        (["response ~ [0-9]"], ["5"]),
        (["prompt~"], ["5", "it's", "é\0", "%"]),
        (["prompt="], ["5"]),
        (["sample.tokens<99999999999999999999999"], ["5", "it's", "é\0", "%"]),
        (["id='; DROP TABLE samples; --'"], []),
    ],
)
def test_examples(varied: Store, where: list[str], ids: list[str]) -> None:
    assert [sample.id for sample in varied.list(where)] == ids
    assert varied.count(where) == len(ids)


def test_one_expression_may_be_given_alone(varied: Store) -> None:
    assert varied.count("id=5") == 1


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "cannot be read"),
        ("tokens", "cannot be read"),
        ("= 5", "cannot be read"),
        ("id ~ (", "regular expression"),
        ("id = 'open", "quotes"),
        ('id = "a" or "b"', "quotes"),
        ("nosuch = 1", "'nosuch'.* id, prompt, .*tags, tokens, topic, two words, x=y"),
        ("metadata.id = 1", "'id'"),
        ("metadata. = 1", "''"),
    ],
)
def test_expressions_that_are_refused(varied: Store, expression: str, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        varied.list([expression])
    with varied.snapshot() as snapshot, pytest.raises(FilterError, match=message):
        snapshot.search(random_vectors(1), 1, [expression])


def test_truth_values_as_python_writes_them(tmp_path: Path) -> None:
    samples = [new_sample("a", truncated=True, metadata={"bad": True}), new_sample("b", metadata={"bad": False})]
    with Store.create(tmp_path / "store", store_settings()) as store:
        with store.writer() as writer:
            writer.commit(samples, random_vectors(2))
        for value in ("true", "True"):
            assert [sample.id for sample in store.list([f"bad={value}"])] == ["a"]
            assert [sample.id for sample in store.list([f"truncated={value}"])] == ["a"]
        assert [sample.id for sample in store.list(["bad!=True"])] == ["b"]


def test_samples_of_a_segment(tmp_path: Path) -> None:
    """What the error about a damaged file says: delete its samples, and the store is well again."""
    with Store.create(tmp_path / "store", store_settings()) as store:
        for id in ("a", "b"):
            with store.writer() as writer:
                writer.commit([new_sample(id)], random_vectors(1))
        name = store.info().segments[0].name
        file = tmp_path / "store" / "segments" / name
        file.write_bytes(file.read_bytes()[:-1])
        (problem,) = store.verify().problems
        assert f"--where segment={name}" in problem
        assert store.delete(where=[f"segment={name}"]) == 1
        assert [sample.id for sample in store.list()] == ["b"]
        assert store.verify().ok


@pytest.mark.parametrize("symbol", ["=", "!=", "<", ">="])
@pytest.mark.parametrize("value", ["1", "0", "yes", "no", "'yes'", ""])
def test_truth_values_are_true_or_false(store: Store, symbol: str, value: str) -> None:
    samples = [
        new_sample("a", truncated=True, metadata={"bad": True, "mixed": True}),
        new_sample("b", metadata={"bad": False, "mixed": 1}),
        new_sample("c", metadata={"bad": None}),
    ]
    with store.writer() as writer:
        writer.commit(samples, random_vectors(3))
    for field in ("bad", "truncated", "metadata.bad"):
        with pytest.raises(FilterError, match=r"its values are true or false, not .*=true'"):
            store.list([f"{field}{symbol}{value}"])
    store.list([f"mixed{symbol}{value}"])
    assert [sample.id for sample in store.list(["mixed=1"])] == ["b"]
    assert [sample.id for sample in store.list(["bad=True"])] == ["a"]
    assert [sample.id for sample in store.list(["bad=null"])] == ["c"]


def test_a_name_that_two_fields_have_is_never_taken_for_one_of_them(tmp_path: Path) -> None:
    fields = [{"file": "a.txt", "tokens": 7, "segment": "news"}, {"file": "b.txt"}, {}]
    with Store.create(tmp_path / "store", store_settings()) as store:
        with store.writer() as writer:
            samples = [new_sample(str(number), metadata=metadata) for number, metadata in enumerate(fields)]
            writer.commit(samples, random_vectors(len(samples)))

        def found(expression: str) -> list[str]:
            return [sample.id for sample in store.list([expression])]

        for name in ("file", "tokens", "segment"):
            for written in (name, f'"{name}"'):
                with pytest.raises(FilterError, match=rf"write metadata\.{name} for .* or sample\.{name} for"):
                    found(f"{written}=1")
        assert found("metadata.file=a.txt") == found("metadata.segment=news") == ["0"]
        assert found('metadata."tokens">5') == ["0"]
        assert found("sample.file=data.jsonl") == found("sample.tokens=10") == ["0", "1", "2"]
        assert found(f"sample.segment={store.info().segments[0].name}") == ["0", "1", "2"]


def test_a_field_that_is_named_like_the_prefix_is_no_built_in_one(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store", store_settings()) as store:
        with store.writer() as writer:
            writer.commit([new_sample("a", metadata={"sample.file": "x"})], random_vectors(1))
        with pytest.raises(FilterError, match=r'write metadata\."sample\.file" for it'):
            store.list(["sample.file=x"])
        assert store.count(['metadata."sample.file"=x']) == 1
