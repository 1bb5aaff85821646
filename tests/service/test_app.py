"""What the routes answer, beside what the library does."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

import rapidin
from rapidin.records.json_form import to_json
from rapidin.service import Limits
from tests.service.conftest import ODD_IDS, QUESTION, Running, running

pytestmark = pytest.mark.timeout(120)


def posted(client: httpx.Client, **asked: object) -> httpx.Response:
    return client.post("/v1/search", json={**QUESTION, **asked})


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"rerank": 0, "opponents": True, "index": "exact"},
        {"where": ["source=red", "number<20"], "by_token": True},
        {"spans": ["blue", [0, 2]], "matrices": True},
        {"generation": None, "max_new_tokens": 5},
    ],
    ids=["plain", "estimates", "filters and tokens", "spans and matrices", "the model answers"],
)
def test_an_answer_is_the_searchers(client: httpx.Client, store: Path, asked: dict[str, object]) -> None:
    found = posted(client, **asked)
    assert found.status_code == 200, found.text
    options = {"rerank": 9, **{name: asked[name] for name in asked if name != "generation"}}
    options["spans"] = [span if isinstance(span, str) else tuple(span) for span in options.get("spans", [])]  # type: ignore[attr-defined]
    with rapidin.Searcher(store) as searcher:
        generation = asked.get("generation", QUESTION["generation"])
        result = searcher.search(QUESTION["prompt"], generation, k=3, **options)  # type: ignore[arg-type]
    expected = json.loads(json.dumps(to_json(result)))
    got = found.json()
    assert [hit["id"] for hit in got["proponents"]] == [hit["id"] for hit in expected["proponents"]]
    for hit, other in zip(got["proponents"], expected["proponents"], strict=True):
        assert hit["score"] == pytest.approx(other["score"], abs=1e-6)
    assert keys(got) == keys(expected)
    assert got["query"] == expected["query"]


def keys(value: object) -> object:
    """The shape of a JSON value."""
    if isinstance(value, dict):
        return {name: keys(entry) for name, entry in value.items()}
    return [keys(entry) for entry in value] if isinstance(value, list) else None


@pytest.mark.parametrize("id", [id for id in ODD_IDS if id != ".."])
def test_samples_of_any_id(client: httpx.Client, store: Path, id: str) -> None:
    with rapidin.Store.open(store) as opened:
        expected = json.loads(json.dumps(to_json(opened.get(id))))
    assert client.get(f"/v1/samples/{quote(id, safe='')}").json() == expected
    assert client.get("/v1/samples", params={"id": id}).json() == expected


def test_an_id_that_no_path_can_hold(client: httpx.Client) -> None:
    assert client.get("/v1/samples", params={"id": ".."}).json()["id"] == ".."


def test_info_and_limits(client: httpx.Client, store: Path) -> None:
    with rapidin.Store.open(store) as opened:
        assert client.get("/v1/info").json() == json.loads(json.dumps(to_json(opened.info())))
    assert client.get("/v1/limits").json()["k"] == Limits().k


def test_new_samples_are_found_without_a_new_start(client: httpx.Client, store: Path, tmp_path: Path) -> None:
    from tests import worlds

    data = worlds.write_rows(tmp_path / "more.jsonl", [{"id": "later", "instruction": "Now?", "output": "Later."}])
    rapidin.ingest_files(store, [data], curvature=False)
    try:
        found = posted(client, prompt="Now?", generation="Later.", k=1).json()
        assert [hit["id"] for hit in found["proponents"]] == ["later"]
    finally:
        with rapidin.Store.open(store) as opened:
            opened.delete(["later"])


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"prompt": " "}, "prompt"),
        ({"generation": ""}, "generation"),
        ({"k": 0}, "k"),
        ({"k": 101}, "k"),
        ({"k": 21, "by_token": True}, "k"),
        ({"k": "3"}, "k"),
        ({"k": True}, "k"),
        ({"k": None}, "k"),
        ({"rerank": 301}, "rerank"),
        ({"rerank": 2}, "rerank"),
        ({"max_new_tokens": 513}, "max_new_tokens"),
        ({"where": ["nonsense"]}, "filter"),
        ({"where": ["nowhere=1"]}, "nowhere"),
        ({"where": "source=red"}, "where"),
        ({"where": ["a=1"] * 21}, "where"),
        ({"spans": ["absent"]}, "absent"),
        ({"spans": [[1, 99]]}, "99"),
        ({"spans": [[1, 2, 3]]}, "spans"),
        ({"index": "ivf"}, "ivf"),
        ({"index": "nonsense"}, "index"),
        ({"measure": "influence"}, "measure cosine"),
        ({"objective": "nonsense"}, "objective"),
        ({"matrices": True, "rerank": 0}, "matrices"),
        ({"nonsense": 1}, "nonsense"),
        ({"prompt": "\ud800"}, "prompt"),
    ],
)
def test_what_cannot_be_asked_is_named(client: httpx.Client, asked: dict[str, object], field: str) -> None:
    body = json.dumps({**QUESTION, **asked})
    found = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert found.status_code == 422, found.text
    error = found.json()["error"]
    assert error["type"] == "unusable"
    assert field in error["message"]
    assert not re.search("--(?!allow|type)", error["message"])
    assert "\n" not in error["message"]


@pytest.mark.parametrize("expression", ["response~(a+)+$", "response~a*", "source!~x{9}", 'id~"(a|a)(a|a)"'])
def test_regular_expressions_that_may_take_for_ever(client: httpx.Client, expression: str) -> None:
    found = posted(client, where=[expression])
    assert found.status_code == 422
    assert "--allow-regular-expressions" in found.json()["error"]["message"]


def test_any_regular_expression_from_people_who_are_trusted(store: Path) -> None:
    with running(store, regular_expressions=True) as server, server.client() as client:
        assert posted(client, where=["source~(re)+d"], rerank=0).status_code == 200


def test_plain_regular_expressions(client: httpx.Client) -> None:
    found = posted(client, where=["source~^r.d$|green"]).json()
    assert {hit["metadata"]["source"] for hit in found["proponents"]} <= {"red", "green"}


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/samples/absent", 404, "not_found"),
        ("GET", "/v1/samples/", 404, "not_found"),
        ("GET", "/v1/samples", 422, "unusable"),
        ("GET", "/v1/search", 405, "method_not_allowed"),
        ("DELETE", "/v1/samples/row-1", 405, "method_not_allowed"),
        ("PUT", "/", 405, "method_not_allowed"),
        ("POST", "/v1/search", 415, "unsupported_media_type"),
    ],
)
def test_errors_have_one_shape(client: httpx.Client, method: str, path: str, status: int, kind: str) -> None:
    found = client.request(method, path)
    assert found.status_code == status
    assert found.json()["error"]["type"] == kind
    assert found.json()["error"].keys() == {"type", "message"}
    assert (status == 405) == ("allow" in found.headers)
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_an_error_nobody_expected_tells_nothing(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(rapidin.Searcher):
        def search(self, *arguments: object, **options: object) -> object:  # type: ignore[override]
            raise ZeroDivisionError("secret")

    with running(store, Broken) as server, server.client() as client:
        found = posted(client)
        assert found.status_code == 500
        assert found.json() == {
            "error": {"type": "internal", "message": "something is wrong with the service; its log says what"}
        }
        assert client.get("/health").status_code == 200
    assert "secret" in caplog.text


@pytest.mark.parametrize("store", ["/secret/here/store", ".", "store"])
def test_an_error_names_the_store_by_its_last_part(store: str) -> None:
    from rapidin.errors import SettingError
    from rapidin.service.problems import problem_of

    told = problem_of(SettingError(f"{store}: no. Really."), Path(store)).message
    assert told == f"{store.rpartition('/')[2]}: no. Really."


def test_a_row_with_half_a_character_can_be_sent(client: httpx.Client, server: Running) -> None:
    from rapidin.service.problems import encoded

    assert json.loads(encoded({"a\ud800": ["\udfff", float("nan"), 1.5]})) == {"a\ufffd": ["\ufffd", None, 1.5]}


def test_more_tokens_than_allowed(store: Path) -> None:
    with running(store, limits=Limits(tokens=40)) as server, server.client() as client:
        found = posted(client, prompt="word " * 30)
        assert found.status_code == 422
        assert "this service takes 40" in found.json()["error"]["message"]
        assert posted(client, prompt="word").status_code == 422  # the template counts, too
    with running(store, limits=Limits(tokens=200)) as server, server.client() as client:
        assert posted(client, prompt="word").status_code == 200


def test_the_report_comes_line_by_line(client: httpx.Client) -> None:
    with client.stream("POST", "/v1/report", json={**QUESTION, "by_token": True}) as found:
        lines = [json.loads(line) for line in found.iter_lines()]
    assert found.headers["content-type"].startswith("application/x-ndjson")
    assert {line["event"] for line in lines[:-1]} == {"progress"}
    assert {"searching", "exact influences"} <= {line["step"] for line in lines[:-1]}
    report = lines[-1]
    assert report["event"] == "report"
    assert report["query"]["generation"] == QUESTION["generation"]
    assert len(report["query"]["proponents"]) == 3
    with client.stream("POST", "/v1/report", json={**QUESTION, "spans": ["absent"]}) as found:
        (*_, line) = [json.loads(line) for line in found.iter_lines()]
    assert (line["event"], line["status"], line["error"]["type"]) == ("error", 422, "unusable")


def test_logs_and_metrics_hold_routes_and_no_prompts(
    client: httpx.Client, server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    posted(client, prompt="very secret prompt")
    client.get("/v1/samples/secret-id")
    client.get("/secret-path")
    client.request("SECRET", "/v1/info")
    text = client.get("/metrics").text
    lines = [record.message for record in caplog.records if record.name == "rapidin.service.requests"]
    assert any("POST /v1/search 200" in line for line in lines)
    assert any("GET /v1/samples/{id:anything} 404" in line for line in lines)
    own = [record.getMessage() for record in caplog.records if record.name.startswith("rapidin")]
    assert not any("secret" in line.replace("SECRET", "") for line in own)
    assert "secret" not in text.lower()
    assert 'rapidin_requests_total{method="POST",route="/v1/search",status="200"}' in text
    assert (
        'rapidin_requests_total{method="other",route="unknown",status="405"}' in text or 'method="other"' in text
    )
    assert "rapidin_queue_length 0.0" in text
    assert "rapidin_ready 1.0" in text
    assert "rapidin_model_seconds_count" in text


def test_openapi_describes_everything(client: httpx.Client, store: Path) -> None:
    described = client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    request = described["components"]["schemas"]["SearchRequest"]["properties"]
    assert request["k"]["maximum"] == 100
    assert request["prompt"]["maxLength"] == 100_000
    for name, field in request.items():
        assert field.get("description"), name
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], path
            assert operation.get("description") or path == "/v1/samples"
            for status, answer in operation["responses"].items():
                assert answer["description"], (path, status)
                (content,) = answer["content"].values()
                if status != "200":
                    assert content["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}, (path, status)
                    assert content["example"]["error"].keys() == {"type", "message"}
            assert "security" not in operation
            assert (method == "post") == ("requestBody" in operation)
    examples = described["paths"]["/v1/search"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    for example in examples.values():
        assert client.post("/v1/search", json={**example["value"], "k": 1}).status_code == 200, example


def test_a_token_stands_in_the_openapi(store: Path) -> None:
    token = "0123456789abcdef"
    with running(store, token=token) as server, server.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
        assert {path for path, methods in paths.items() for one in methods.values() if "security" in one} == {
            path for path in paths if path.startswith("/v1/") or path == "/metrics"
        }
        assert client.get("/v1/info").status_code == 401
        assert client.get("/v1/info").headers["www-authenticate"].startswith("Bearer")
        assert client.get("/v1/info", headers={"Authorization": f"Bearer {token}"}).status_code == 200
