"""Exact scores, tokens, words, spans and reports, from a store to what is printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import rapidin
from rapidin.cli import app
from rapidin.errors import SettingError
from rapidin.records.hits import SearchResult
from rapidin.settings.store_settings import ModelSettings
from tests import worlds
from tests.search.test_search import exact_scores

QUESTION = ("Name the colour.", "It is blue 99, and not red.")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model_directory: Path, data: Path) -> Path:
    path = tmp_path_factory.mktemp("search") / "store"
    rapidin.ingest_files(path, [data], model=str(model_directory), projection_dim=1024, curvature=False)
    return path


@pytest.fixture(scope="module")
def exact(model_directory: Path, data: Path) -> dict[str, float]:
    return exact_scores(ModelSettings(model=str(model_directory)), data, *QUESTION)


@pytest.fixture(scope="module")
def explained(store: Path) -> SearchResult:
    with rapidin.Searcher(store) as searcher:
        return searcher.search(*QUESTION, k=5, rerank=60, opponents=True, by_token=True, matrices=True)


def test_hits_are_ordered_by_their_exact_influence(explained: SearchResult, exact: dict[str, float]) -> None:
    best = sorted(exact, key=lambda id: -exact[id])
    assert [hit.id for hit in explained.proponents] == best[:5]
    assert [hit.id for hit in explained.opponents] == best[::-1][:5]
    for hit in (*explained.proponents, *explained.opponents):
        assert hit.exact == pytest.approx(exact[hit.id], abs=1e-5)
        assert abs(hit.estimate - exact[hit.id]) < 5 / np.sqrt(1024)
    assert [hit.rank for hit in explained.proponents] == [1, 2, 3, 4, 5]
    assert explained.explained == "forward mode"


def test_tokens_words_and_matrices_add_up(explained: SearchResult) -> None:
    generation = explained.generation_tokens
    assert "".join(token.token for token in generation) == QUESTION[1]
    for hit in (*explained.proponents, *explained.opponents):
        size = sum(abs(token.influence) for token in hit.token_influences)
        assert len(hit.token_influences) == hit.targets
        for parts in (hit.token_influences, hit.words):
            assert sum(part.influence for part in parts) == pytest.approx(hit.exact, abs=1e-4 * size)
            assert all(hit.text[part.start : part.end] == part.token for part in parts)
        assert "".join(token.token for token in hit.token_influences) == hit.response
        matrix = np.array(hit.matrix)
        assert matrix.shape == (len(generation), len(hit.token_influences))
        np.testing.assert_allclose(
            matrix.sum(axis=0), [token.influence for token in hit.token_influences], atol=1e-4 * size
        )
    shown = sum(np.array(hit.matrix).sum(axis=1) for hit in explained.proponents)
    np.testing.assert_allclose([token.influence for token in generation], shown, atol=1e-9)


def test_tokens_of_the_generation_add_up_to_its_scores(store: Path, explained: SearchResult) -> None:
    """Every sample's scores by token, over all of the store, add up to its score."""
    with rapidin.Searcher(store) as searcher:
        result = searcher.search(*QUESTION, k=60, by_token=True)
    assert [token.token for token in result.by_token] == [token.token for token in explained.generation_tokens]
    sums = dict.fromkeys((hit.id for hit in result.proponents), 0.0)
    for token in result.by_token:
        scores = [hit.score for hit in token.proponents]
        assert scores == sorted(scores, reverse=True)
        for hit in token.proponents:
            sums[hit.id] += hit.score
    for hit in result.proponents:
        # Four bits a number; beside them a query's numbers are rounded to twelve.
        assert sums[hit.id] == pytest.approx(hit.score, abs=5e-3)
    assert [hit.id for hit in explained.by_token[0].opponents] == [
        hit.id for hit in reversed(result.by_token[0].proponents[-5:])
    ]


def test_a_span_restricts_the_target(store: Path, data: Path, model_directory: Path) -> None:
    with rapidin.Searcher(store) as searcher:
        whole = searcher.search(*QUESTION, k=3, rerank=60)
        span = searcher.search(*QUESTION, k=3, rerank=60, spans=["blue"])
        start = QUESTION[1].index("blue")
        offsets = searcher.search(*QUESTION, k=3, rerank=60, spans=[(start, start + 4)])
        assert span == offsets
        assert span.query.spans == ((start, start + 4),)
        assert 0 < span.query.targets < whole.query.targets
        assert [hit.exact for hit in span.proponents] != [hit.exact for hit in whole.proponents]
        with pytest.raises(SettingError, match=r"'green'.*It is blue 99, and not red"):
            searcher.search(*QUESTION, spans=["green"])


def test_approximate_and_compressed_search_end_in_exact_answers(
    store: Path, tmp_path: Path, exact: dict[str, float]
) -> None:
    """A store of one bit, whose own order differs, gives the exact one once its candidates suffice."""
    rapidin.recode(store, tmp_path / "coarse", bits=1)
    best = sorted(exact, key=lambda id: -exact[id])[:3]
    with rapidin.Searcher(tmp_path / "coarse") as searcher:
        plain = searcher.search(*QUESTION, k=60)
        assert [hit.id for hit in plain.proponents] != sorted(exact, key=lambda id: -exact[id])
        result = searcher.search(*QUESTION, k=3, rerank=60)
    assert [hit.id for hit in result.proponents] == best


def test_a_sample_that_cannot_be_encoded_again_keeps_its_estimate(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from rapidin.errors import StoreMismatchError
    from rapidin.text import Encoder

    original = Encoder.encode_stored

    def refusing(self, sample):
        if sample.id == "row-7":
            raise StoreMismatchError("sample 'row-7': other tokens now")
        return original(self, sample)

    monkeypatch.setattr(Encoder, "encode_stored", refusing)
    with rapidin.Searcher(store) as searcher:
        result = searcher.search(*QUESTION, k=60, rerank=60)
    (hit,) = [hit for hit in result.proponents if hit.id == "row-7"]
    assert hit.exact is None
    assert hit.token_influences == hit.words == ()
    assert "row-7" in caplog.text
    assert sum(hit.exact is not None for hit in result.proponents) == 59


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: object) -> str:
    """What a command that fails says on stderr."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code != 0
    return result.stderr


def test_the_command_explains_a_prompt_by_itself(store: Path, exact: dict[str, float]) -> None:
    found = json.loads(
        run("search", store, "--prompt", QUESTION[0], "--generation", QUESTION[1], "-k", 4, "--json")
    )
    hits = found["proponents"]
    scores = [hit["exact"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    for hit in hits:
        assert hit["exact"] == pytest.approx(exact[hit["id"]], abs=1e-5)
        assert hit["tokens"] > len(hit["token_influences"])
        assert set(hit["token_influences"][0]) == {"token", "start", "end", "influence"}
        first = hit["token_influences"][0]
        assert hit["text"][first["start"] : first["end"]] == first["token"]
    assert "by_token" not in found
    assert found["explained"] == "forward mode"


def test_the_command_without_explanations(store: Path) -> None:
    question = ("search", store, "--prompt", QUESTION[0], "--generation", QUESTION[1], "-k", 4, "--json")
    plain = json.loads(run(*question, "--rerank", 0))
    assert plain["proponents"][0]["exact"] is None
    assert "token_influences" not in plain["proponents"][0]
    scores = [hit["score"] for hit in plain["proponents"]]
    assert scores == sorted(scores, reverse=True)


def test_a_file_of_queries_is_answered_quickly_unless_asked(store: Path, tmp_path: Path) -> None:
    queries = worlds.write_rows(tmp_path / "queries.jsonl", worlds.rows(2, first=100))
    plain = [json.loads(line) for line in run("search", store, "--queries", queries, "--json").splitlines()]
    assert all("token_influences" not in hit for result in plain for hit in result["proponents"])
    lines = run("search", store, "--queries", queries, "--json", "--rerank", 12, "--by-token").splitlines()
    for result in map(json.loads, lines):
        assert all(hit["token_influences"] for hit in result["proponents"])
        assert len(result["by_token"]) == result["query"]["targets"]
        assert {"token", "start", "end", "proponents"} <= set(result["by_token"][0])


def test_wrong_options_are_told_before_the_model_is_loaded(store: Path, tmp_path: Path) -> None:
    for options, message in (
        (("--rerank", 3, "-k", 5), "--rerank 3 is less than the 5"),
        (("--report", tmp_path / "nowhere" / "r.html"), "directory does not exist"),
    ):
        assert re.search(message, refusal("search", store, "--prompt", "a", "--model", "/nowhere", *options))


def test_a_report_is_written(store: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    question = ("--prompt", QUESTION[0], "--generation", QUESTION[1], "-k", 2, "--opponents")
    run("search", store, *question, "--report", report)
    page = report.read_text(encoding="utf-8")
    assert "forward mode" in page and "row-" in page and store.name in page
    assert str(store.parent) not in page  # it may be sent to others


@pytest.mark.parametrize("where", ["id=row-3", "id=none"])
def test_few_or_no_samples(store: Path, where: str) -> None:
    with rapidin.Searcher(store) as searcher:
        result = searcher.search(*QUESTION, k=5, rerank=15, by_token=True, where=[where])
    assert len(result.proponents) == (where != "id=none")
    assert len(result.by_token) == result.query.targets


def view(result: SearchResult, terminal: bool) -> str:
    from rich.console import Console

    from rapidin.commands.views.search_view import search_view

    console = Console(
        width=100, force_terminal=terminal, color_system="truecolor" if terminal else None, record=True
    )
    with console.capture() as captured:
        console.print(search_view(result), highlight=False)
    return captured.get()


def test_words_are_shaded_on_a_terminal_and_plain_elsewhere(explained: SearchResult) -> None:
    shaded, plain = view(explained, terminal=True), view(explained, terminal=False)
    assert "\x1b[" in shaded and "\x1b[" not in plain
    strongest = max(explained.proponents[0].words, key=lambda word: abs(word.influence))
    assert f"strongest words: {strongest.token.strip()} {strongest.influence:+.4f}" in plain
    assert "strongest words" not in shaded
    assert "a sample's words add up to its score" in " ".join(plain.split())
    assert f"{explained.proponents[0].exact:+.4f}" in plain
    assert "by token" in plain


def test_long_samples_show_the_part_that_matters(explained: SearchResult) -> None:
    from dataclasses import replace

    from rapidin.records.hits import TokenInfluence

    hit = explained.proponents[0]
    text = hit.prompt + "dull " * 500 + "treasure" + " dull" * 500
    start = text.index("treasure")
    words = [TokenInfluence("dull", place, place + 4, 1e-6) for place in range(len(hit.prompt), start, 5)]
    words.append(TokenInfluence("treasure", start, start + 8, 0.5))
    long = replace(hit, words=tuple(words), response=text[len(hit.prompt) :])
    shown = view(replace(explained, proponents=(long,), opponents=(), by_token=()), terminal=False)
    assert "treasure" in shown and len(shown) < 3000


def test_where_the_gradient_does_not_fit_the_estimates_are_explained(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rapidin.attribution.influence import explainer

    monkeypatch.setattr(explainer, "free_bytes", lambda _: 1000)
    with rapidin.Searcher(store) as searcher:
        result = searcher.search(*QUESTION, k=3, rerank=9, matrices=True)
    assert result.explained == "forward mode along the query's RapidGrad"
    for hit in result.proponents:
        assert hit.exact is None
        # Norms of layers are exact here, those of sketches in the store.
        assert sum(token.influence for token in hit.token_influences) == pytest.approx(
            hit.score, abs=0.3 * abs(hit.score)
        )
        np.testing.assert_allclose(
            np.array(hit.matrix).sum(axis=0), [token.influence for token in hit.token_influences], atol=2e-3
        )


@pytest.mark.parametrize("spans", ["blue", (0, 3), [(0, 1, 2)], [("a", "b")], [7]])
def test_what_is_no_part_of_a_generation(store: Path, spans: object) -> None:
    from rapidin.settings.search_options import SearchOptions

    with pytest.raises(SettingError, match=r"spans is the text|is no part of a generation"):
        SearchOptions(spans=spans)


def test_a_query_of_a_file_without_the_span_is_named(store: Path, tmp_path: Path) -> None:
    queries = worlds.write_rows(tmp_path / "queries.jsonl", worlds.rows(2, first=100))
    assert re.search(
        r"queries.jsonl, row 1.*'zebra'", refusal("search", store, "--queries", queries, "--span", "zebra")
    )


def test_threads_take_turns(store: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with rapidin.Searcher(store) as searcher:
        alone = searcher.search(*QUESTION, k=3, rerank=6, by_token=True)
        with ThreadPoolExecutor(3) as pool:
            together = list(pool.map(lambda _: searcher.search(*QUESTION, k=3, rerank=6, by_token=True), range(6)))
    assert all(result == alone for result in together)


def test_a_directory_is_no_report(store: Path, tmp_path: Path) -> None:
    question = ("search", store, "--prompt", "a", "--model", "/nowhere")
    assert "is a directory" in refusal(*question, "--report", tmp_path)


def test_a_terminal_obeys_no_data(explained: SearchResult) -> None:
    from dataclasses import replace

    hostile = "\x1b[2J\x07\x9b31m\x08"
    hit = explained.proponents[0]
    turned = replace(hit, id=f"id{hostile}", prompt=hostile + hit.prompt, metadata={hostile: hostile})
    for one in (replace(turned, words=(), token_influences=()), replace(turned, prompt="")):
        query = replace(explained.query, id=hostile, prompt=hostile, generation=hostile)
        shown = view(replace(explained, query=query, proponents=(one,)), terminal=False)
        assert not {"\x1b", "\x07", "\x9b", "\x08"} & set(shown)


def test_an_end_says_nothing_untrue_of_samples_on_the_other_side_of_zero(explained: SearchResult) -> None:
    from dataclasses import replace

    turned = replace(explained, opponents=explained.proponents[:1], by_token=())
    assert "opponents: training on those below zero made it less likely" in view(turned, terminal=False)
    assert "proponents: training on them made this answer more likely" in view(turned, terminal=False)
