"""The page as text: what is in it, and that nothing can break out of it."""

import base64
import dataclasses
import hashlib
import itertools
import json
import re
import struct
from html.parser import HTMLParser
from typing import Any

import pytest

from rapidin.records.hits import SearchResult, TokenInfluence
from rapidin.report import render_report
from rapidin.text import words_of
from tests.report.examples import DUST, found_hit, full_result, plain_result, query, sample

HOSTILE = (
    "</script><script>bad()</script><img src=x onerror=bad()> ' \" & \u2028\u2029 \u202e <!-- \x00 \ud800 🦀 مرحبا"
)


class Elements(HTMLParser):
    """Start tags, and the text of scripts and styles, as a browser would part them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag in ("script", "style")
        if self._inside:
            self.texts.append((dict(attrs).get("id") or tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            name, text = self.texts[-1]
            self.texts[-1] = (name, text + data)


def data_of(page: str, id: str = "query-0") -> Any:
    return json.loads(dict(Elements(page).texts)[id])


def hostile_result() -> SearchResult:
    found = sample(HOSTILE, HOSTILE, HOSTILE, file=HOSTILE, metadata={HOSTILE: HOSTILE, "list": [HOSTILE]})
    hit = found_hit(1, 0.5, found)
    return SearchResult(
        query(HOSTILE, prompt=HOSTILE, id=HOSTILE, metadata={HOSTILE: HOSTILE}), (hit,), index=HOSTILE
    )


def test_the_page_shows_the_words_of_terminal_and_json() -> None:
    texts = ["The", " well", "-", "known", " price", ",", " 3", ".", "14", "!", "漢", "字", ""]
    generation = "".join(texts)
    ends = list(itertools.accumulate(map(len, texts)))
    tokens = tuple(TokenInfluence(text, end - len(text), end, 1.0) for text, end in zip(texts, ends, strict=True))
    result = SearchResult(query(generation), (found_hit(1, 0.5, sample("s", "p", "r")),), generation_tokens=tokens)
    shown = [generation[start:end] for start, end, _ in data_of(render_report([result]))["words"]]
    assert shown == [word.token.strip() for word in words_of(generation, tokens)]
    assert shown == ["The", "well-known", "price", ",", "3.14", "!", "漢", "字", ""]


def test_nothing_breaks_out_of_the_page() -> None:
    tame = Elements(render_report([plain_result("a"), plain_result("b")], facts={"a": "b"}))
    page = render_report([hostile_result()] * 2, title=HOSTILE, facts={HOSTILE: HOSTILE})
    hostile = Elements(page)
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in tame.tags]
    assert not {name for _, attributes in hostile.tags for name in attributes if name.startswith("on")}
    assert page.encode()
    expected = HOSTILE.replace("\ud800", "\ufffd")
    assert data_of(page)["generation"] == expected
    (row,) = data_of(page, "samples")
    assert row["text"] == expected * 2
    assert row["metadata"] == [[expected, expected], ["list", json.dumps([expected], ensure_ascii=False)]]


def test_data_hold_no_character_that_ends_a_script() -> None:
    page = render_report([hostile_result()])
    data = "".join(text for name, text in Elements(page).texts if name not in ("script", "style"))
    assert not set("<>&\u2028\u2029") & set(data)


def test_the_policy_knows_every_script_and_style_and_nothing_else() -> None:
    page = render_report([full_result()])
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    hashes = set(re.findall(r"'(sha256-[^']+)'", policy))
    digests = {
        f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
        for name, text in Elements(page).texts
        if name in ("script", "style")
    }
    assert hashes == digests
    assert len(hashes) == 3


def test_the_page_names_no_address() -> None:
    page = render_report([full_result()], facts={"store": "runs/store"})
    assert "http:" not in page
    assert "https:" not in page
    assert "url(" not in page
    for _, attributes in Elements(page).tags:
        assert attributes.get("src") is None
        assert attributes.get("href") in (None, "data:,")
        assert "style" not in attributes


def test_the_same_results_give_the_same_page() -> None:
    assert render_report([full_result()]) == render_report([full_result()])


def test_title_and_facts_stand_in_the_page() -> None:
    page = render_report([full_result()], title="Why Mars?", facts={"model": "tiny <b>"})
    assert "<title>Why Mars?</title>" in page
    assert "<bdi>tiny &lt;b&gt;</bdi>" in page


def test_numbers_reach_the_page() -> None:
    data = data_of(render_report([full_result()]))
    dust = data["details"]["0"]
    assert (dust["rank"], dust["estimate"], dust["exact"]) == (1, 0.7, 0.71)
    assert dust["influences"] == [0.6, 0.11, 0.0]
    assert dust["parts"] == [[9, 13], [13, 19], [19, 19]]
    packed = base64.b64decode(dust["matrix"])
    assert struct.unpack("<15f", packed) == pytest.approx([value for row in DUST for value in row])
    assert data["words"] == [[0, 4, [0]], [5, 7, [1]], [8, 11, [2, 3]], [11, 11, [4]]]
    assert data["influences"] == [0.7, 0.01, -0.1, 0.2, 0.05]
    assert data["byToken"][0] == [[1, 0.42, None], [3, 0.35, None], [0, 0.31, None]]
    assert data["opponents"] == [2]


def test_a_sample_stands_in_the_page_once() -> None:
    assert len(data_of(render_report([full_result()] * 3), "samples")) == 4


def test_matrix_rows_keep_their_tokens_when_results_are_not_in_the_texts_order() -> None:
    result = full_result(by_token=False)
    result = dataclasses.replace(result, generation_tokens=result.generation_tokens[::-1])
    assert data_of(render_report([result]))["rows"] == [4, 3, 2, 1, 0]


def test_offsets_count_as_browsers_do() -> None:
    found = sample("a", "🦀 crab", "🦀🦀")
    tokens = (TokenInfluence(" crab", 3, 8, 1.0),)
    result = SearchResult(query("🦀 is", spans=((2, 4),)), (found_hit(1, 1.0, found, 1.0, tokens),))
    page = render_report([result])
    assert data_of(page)["details"]["0"]["parts"] == [[6, 11]]
    assert data_of(page)["spans"] == [[3, 5]]
    assert data_of(page, "samples")[0]["split"] == 4


def test_numbers_that_are_none_are_no_numbers() -> None:
    result = SearchResult(query(), (found_hit(1, float("nan"), sample("a"), float("inf")),))
    detail = data_of(render_report([result]))["details"]["0"]
    assert (detail["estimate"], detail["exact"]) == (None, None)


def test_a_matrix_that_does_not_fit_is_refused() -> None:
    result = full_result()
    (first, *others) = result.proponents
    wrong = dataclasses.replace(first, matrix=first.matrix[1:])
    with pytest.raises(ValueError, match=r"'dust'.*matrix"):
        render_report([dataclasses.replace(result, proponents=(wrong, *others))])


@pytest.mark.parametrize("result", [plain_result(), plain_result("", generation="", prompt="")])
def test_little_is_enough(result: SearchResult) -> None:
    assert data_of(render_report([result]))["words"] == []


def test_no_results_make_a_page_that_says_so() -> None:
    page = render_report([])
    assert "There are no results" in page
    assert "query-0" not in page


def test_long_texts_and_many_tokens_take_little_room() -> None:
    long = "word " * 20_000
    places = [(start, start + 5) for start in range(0, 20_000, 5)]
    generation = long[:20_000]
    found = sample("long", long)
    tokens = tuple(TokenInfluence("word ", 9 + start, 9 + end, 0.001) for start, end in places[:100])
    matrix = tuple(tuple(0.1 for _ in tokens) for _ in places)
    result = SearchResult(
        query(generation),
        (found_hit(1, 0.4, found, 0.1, tokens, (), matrix),),
        generation_tokens=tuple(TokenInfluence("word ", start, end, 0.5) for start, end in places),
    )
    page = render_report([result])
    assert len(page) < 100_000 + 400_000 * 6 + 300_000
    assert len(data_of(page)["words"]) == 4_000


def test_many_queries_can_be_picked() -> None:
    results = [plain_result("a", generation=f"answer {number}", id=f"q{number}") for number in range(50)]
    page = render_report(results)
    assert page.count("<option>") == 50
    assert "<option>50 · \u2068q49\u2069 · \u2068answer 49\u2069</option>" in page
    assert "<select" not in render_report(results[:1])
