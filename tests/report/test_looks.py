"""What every page must bear: hostile data, long texts, small screens, both themes, paper."""

from __future__ import annotations

import dataclasses
import io
import re
from typing import Any

import pytest

from rapidin.records.hits import SearchResult, TokenInfluence
from tests.report.conftest import Open
from tests.report.examples import found_hit, full_result, plain_result, query, sample

pytestmark = pytest.mark.browser

PAYLOAD = "</script><script>window.hit=1</script><img src=x onerror='window.hit=1'><svg onload=window.hit=1>"
PAYLOAD += "\u202e \u2028"


def hostile_result() -> SearchResult:
    found = sample(PAYLOAD, PAYLOAD, PAYLOAD, file=PAYLOAD, metadata={PAYLOAD: PAYLOAD})
    start = len(PAYLOAD)
    tokens = tuple(
        TokenInfluence(PAYLOAD[at : at + 5], start + at, start + at + 5, 0.1) for at in range(0, start, 5)
    )
    matrix = tuple(tuple(0.1 for _ in tokens) for _ in range(2))
    half = start // 2
    words = (TokenInfluence("", 0, half, 0.2), TokenInfluence("", half, start, 0.2))
    return SearchResult(
        query(PAYLOAD, prompt=PAYLOAD, id=PAYLOAD, metadata={PAYLOAD: PAYLOAD}),
        (found_hit(1, 0.1, found, 0.1, tokens, (), matrix),),
        index=PAYLOAD,
        generation_tokens=words,
        explained=PAYLOAD,
    )


def contrasts(page: Any) -> list[float]:
    """Contrast of the text of every shaded piece with what lies behind it."""
    return page.evaluate(
        """() => {
          const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
          const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
            .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const behind = (element) => {
            for (let at = element.parentElement; at; at = at.parentElement) {
              const colour = numbers(getComputedStyle(at).backgroundColor);
              if (colour.length === 3) return colour;
            }
          };
          return [...document.querySelectorAll(".piece")].filter((e) => e.textContent).map((element) => {
            const style = getComputedStyle(element);
            const [r, g, b, alpha = 1] = numbers(style.backgroundColor);
            const paper = behind(element);
            const back = light([r, g, b].map((v, i) => v * alpha + paper[i] * (1 - alpha)));
            const ink = light(numbers(style.color));
            return (Math.max(back, ink) + 0.05) / (Math.min(back, ink) + 0.05);
          });
        }"""
    )


def overflow(page: Any) -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_hostile_data_are_only_shown(open_report: Open) -> None:
    page = open_report([hostile_result(), hostile_result()], width=390)
    page.locator(".token").first.click()
    page.locator(".word").first.click()
    page.locator(".token").last.hover()
    page.click("#next")
    page.wait_for_timeout(100)
    assert page.evaluate("window.hit === undefined")
    assert page.locator("img, svg, script:not(head script):not([type]):not(:last-of-type)").count() == 0
    assert page.locator("#generation").evaluate("e => e.textContent") == PAYLOAD
    assert page.locator(".response").first.evaluate("e => e.textContent") == PAYLOAD
    assert overflow(page) <= 0


def test_the_page_leaves_no_globals(open_report: Open) -> None:
    page = open_report([full_result()])
    assert page.evaluate("[typeof readData, typeof page, typeof make, typeof shown]") == ["undefined"] * 4


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_on_shades_can_be_read(open_report: Open, theme: Any) -> None:
    page = open_report([full_result()], color_scheme=theme, reduced_motion="reduce")
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert min(contrasts(page)) >= 4.5
    page.locator(".word").filter(has_text="red").click()
    page.click("#opponents-tab")
    assert page.locator("#opponents-list .away").count() == 2
    assert min(contrasts(page)) >= 4.5


def test_the_theme_follows_the_system_until_the_button_is_used(open_report: Open) -> None:
    page = open_report([full_result()], color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    # Not wait_for_function: where it has to wait at all it evaluates text, which the page's policy forbids.
    page.locator("html[data-theme=dark]").wait_for(state="attached")
    dark = page.evaluate(background)
    assert dark != light
    page.click("#theme")
    assert page.evaluate(background) == light
    page.emulate_media(color_scheme="light")
    page.click("#theme")
    assert page.evaluate(background) == dark


def test_a_phone_scrolls_one_way_only(open_report: Open) -> None:
    long = "x" * 500
    found = sample(long, long, long, file=long, metadata={long: long})
    wide = SearchResult(query(long, prompt=long, id=long), (found_hit(1, 0.5, found),))
    page = open_report([full_result(), wide], width=390)
    left, right = page.locator(".question").bounding_box(), page.locator(".answers").bounding_box()
    assert left is not None and right is not None
    assert right["y"] >= left["y"] + left["height"]
    assert overflow(page) <= 0
    page.locator(".word").first.click()
    assert overflow(page) <= 0
    page.locator(".token").last.hover()
    tooltip = page.locator("#tooltip").bounding_box()
    assert tooltip is not None and tooltip["x"] >= 0 and tooltip["x"] + tooltip["width"] <= 390
    page.click("#next")
    assert overflow(page) <= 0


def test_paper_is_light_and_shows_both_lists(open_report: Open) -> None:
    page = open_report([full_result()], color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("#proponents").is_visible()
    assert page.locator("#opponents").is_visible()
    assert not page.locator("#theme").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).breakInside") == "avoid"
    assert page.evaluate("getComputedStyle(document.querySelector('.token')).printColorAdjust") == "exact"
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
    )
    assert min(red, green, blue) > 240
    assert min(contrasts(page)) >= 4.5
    assert io.BytesIO(page.pdf()).read(4) == b"%PDF"


def test_long_texts_are_shown_when_asked_for(open_report: Open) -> None:
    long = "lorem ipsum " * 8_500
    places = [(9 + at, 9 + at + 6) for at in range(0, 30_000, 6)]
    found = sample("long", long)
    tokens = tuple(TokenInfluence("", start, end, 0.1) for start, end in places)
    page = open_report([SearchResult(query(long), (found_hit(1, 0.5, found, 0.5, tokens),))])
    assert 100 < page.locator(".token").count() < 300
    page.get_by_role("button", name="Show all 102,000 characters").click()
    assert page.locator(".token").count() == 5_000
    assert len(page.locator(".response").inner_text()) > 102_000
    page.get_by_role("button", name="Show less").click()
    assert page.locator(".token").count() < 300


def test_only_the_first_of_many_samples_are_drawn(open_report: Open) -> None:
    page = open_report([plain_result(*(f"answer {number}" for number in range(50)))])
    assert page.locator(".card").count() == 20
    page.click("#proponents-more")
    assert page.locator(".card").count() == 50
    assert not page.locator("#proponents-more").is_visible()


def test_right_to_left_text_stays_in_its_place(open_report: Open) -> None:
    arabic = "عاصمة فرنسا هي باريس"
    found = sample("עברית", arabic, arabic + " ", file="ملف.jsonl")
    tokens = (TokenInfluence("", 21, 26, 0.4), TokenInfluence("", 26, 32, -0.4))
    page = open_report([SearchResult(query(arabic), (found_hit(1, 0.5, found, 0.0, tokens),))])
    assert page.evaluate("getComputedStyle(document.querySelector('.response')).direction") == "rtl"
    assert page.evaluate("getComputedStyle(document.body).direction") == "ltr"
    first, second = (page.locator(".token").nth(number).bounding_box() for number in (0, 1))
    assert first is not None and second is not None and second["x"] < first["x"]


@pytest.mark.parametrize(
    "result", [plain_result(), plain_result("", generation=""), plain_result("a 🦀 b", generation="c 🦀 d")]
)
def test_results_with_little_in_them_are_shown(open_report: Open, result: SearchResult) -> None:
    page = open_report([result])
    assert page.locator("#proponents-list .card").count() == len(result.proponents)
    assert page.locator("#proponents-none").is_visible() == (not result.proponents)
    assert not page.locator("#hint").is_visible()
    assert not page.locator("#samples-legend").is_visible()


def test_bytes_of_one_character_share_a_piece(open_report: Open) -> None:
    found = sample("a", "🦀!")
    tokens = tuple(TokenInfluence("", start, end, 0.1) for start, end in [(9, 10), (9, 10), (9, 10), (10, 11)])
    page = open_report([SearchResult(query(), (found_hit(1, 0.4, found, 0.4, tokens),))])
    assert page.locator(".token").all_inner_texts() == ["🦀", "!"]
    page.locator(".token").first.hover()
    assert "3 tokens" in page.locator("#tooltip").inner_text()
    assert "+0.3000" in page.locator("#tooltip").inner_text()


def test_a_page_without_results_opens(open_report: Open) -> None:
    assert "There are no results" in open_report([]).locator("main").inner_text()


def test_names_and_roles_are_there_for_those_who_listen(open_report: Open) -> None:
    page = open_report([full_result()])
    for role, name in (
        ("tab", re.compile("Proponents")),
        ("button", "Mars"),
        ("button", "Light or dark"),
        ("heading", "Training samples"),
        ("group", "The model’s answer"),
    ):
        assert page.get_by_role(role, name=name, exact=True).count() == 1, name  # type: ignore[arg-type]
    assert page.get_by_role("button", name="end of sequence").count() == 3
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_numbers_too_small_for_four_digits_keep_theirs(open_report: Open) -> None:
    result = plain_result("a")
    hit = dataclasses.replace(result.proponents[0], estimate=-0.0000123)
    page = open_report([dataclasses.replace(result, proponents=(hit,))])
    assert page.locator(".first .value").inner_text() == "−1.23e−5"
