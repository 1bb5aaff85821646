"""JSON of records: the keys that programs outside rely on, and that the records' types say the same."""

import json
import math
from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from rapidin.records import (
    Hit,
    Query,
    Sample,
    SearchResult,
    TokenInfluence,
    TokenResult,
    VerifyReport,
    to_json,
)

SAMPLE = Sample("a", "Who?", " We did.", {"source": "web"}, "train.jsonl", 3, 9, 4, False, "0" * 32)
OF_SAMPLE = {
    *("id", "text", "prompt", "response", "metadata", "file", "row", "tokens", "targets", "truncated"),
    "content_hash",
}
OF_HIT = {*OF_SAMPLE, "rank", "score", "estimate", "exact"}
TOKENS = (TokenInfluence("We", 5, 7, 0.5),)
QUERY = Query("0", "Who?", "We did.", False, 9, 4, False)


def test_a_sample_has_its_text_and_its_number_of_tokens() -> None:
    found = to_json(SAMPLE)
    assert set(found) == OF_SAMPLE
    assert (found["text"], found["tokens"]) == ("Who? We did.", 9)


def test_a_chat_has_its_spans() -> None:
    assert to_json(replace(SAMPLE, target_spans=((1, 2),)))["target_spans"] == [[1, 2]]


def test_a_hit_is_ranked_by_its_estimate_until_the_exact_influence_is_known() -> None:
    plain, exact = to_json(Hit.of(SAMPLE, 1, 0.25)), to_json(Hit.of(SAMPLE, 1, 0.25, exact=0.5))
    assert set(plain) == set(exact) == OF_HIT
    assert (plain["score"], plain["estimate"], plain["exact"]) == (0.25, 0.25, None)
    assert (exact["score"], exact["estimate"], exact["exact"]) == (0.5, 0.25, 0.5)


def test_a_hit_has_what_was_computed_of_it() -> None:
    hit = Hit.of(SAMPLE, 1, 0.25, exact=0.5, token_influences=TOKENS, words=TOKENS, matrix=((0.5,),))
    found = to_json(hit)
    assert set(found) == {*OF_HIT, "token_influences", "words", "matrix"}
    assert found["token_influences"] == [{"token": "We", "start": 5, "end": 7, "influence": 0.5}]
    assert (found["matrix"], found["tokens"]) == ([[0.5]], 9)


def test_a_result_has_what_was_asked_for() -> None:
    hits = (Hit.of(SAMPLE, 1, 0.25),)
    found = to_json(SearchResult(QUERY, hits))
    shape = {"query", "measure", "curvature", "objective", "index", "proponents", "opponents"}
    assert set(found) == shape
    assert (found["measure"], found["index"], found["opponents"]) == ("cosine", "exact", [])
    result = SearchResult(
        QUERY,
        hits,
        by_token=(TokenResult("We", 0, 2, hits),),
        generation_tokens=TOKENS,
        explained="forward mode",
    )
    assert set(to_json(result)) == {*found, "by_token", "generation_tokens", "explained"}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_lacks_is_null_wherever_it_stands(number: float) -> None:
    hit = Hit.of(replace(SAMPLE, metadata={"own": number, "list": [number, 1.5]}), 1, number, matrix=((number,),))
    found = to_json({"hits": (hit,), "own": number})
    assert found["own"] is None
    (found,) = found["hits"]
    assert (found["estimate"], found["score"], found["matrix"]) == (None, None, [[None]])
    assert found["metadata"] == {"own": None, "list": [None, 1.5]}
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("kind", [Sample, Hit, SearchResult, VerifyReport])
def test_the_schema_names_the_keys(kind: type) -> None:
    schema = TypeAdapter(kind).json_schema(mode="serialization")
    records = {
        Sample: SAMPLE,
        Hit: Hit.of(SAMPLE, 1, 0.25),
        SearchResult: SearchResult(QUERY, ()),
        VerifyReport: VerifyReport(3, ("a is damaged",)),
    }
    found = to_json(records[kind])
    assert set(found) <= set(schema["properties"])
    assert set(schema["required"]) <= set(found)


def test_lists_and_mappings_of_records() -> None:
    report = VerifyReport(3, ())
    assert to_json({"a": [report], 1: (None, "x")}) == {
        "a": [{"samples": 3, "problems": [], "ok": True}],
        "1": [None, "x"],
    }
