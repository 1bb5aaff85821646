"""Words and tokens that are clicked, dragged over and reached by keys, in a real browser."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests.report.conftest import Open
from tests.report.examples import full_result, plain_result

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser


def cards(page: Page, side: str = "proponents") -> list[tuple[str, str]]:
    """Ids and first figures of the cards of a list."""
    found = page.locator(f"#{side}-list .card")
    return [(card.locator(".id").inner_text(), card.locator(".first .value").inner_text()) for card in found.all()]


def word(page: Page, text: str) -> Locator:
    return page.locator(".word").filter(has_text=text)


def token(page: Page, card: str, text: str) -> Locator:
    cards = page.locator(".card").filter(has=page.locator(f".id:text-is('{card}')"))
    return cards.locator(".token").filter(has_text=text)


def strengths(elements: Locator) -> list[float]:
    """Shades with their signs."""
    return elements.evaluate_all(
        """all => all.map((element) => Number(element.style.getPropertyValue("--strength"))
        * (element.classList.contains("away") ? -1 : 1))"""
    )


WHOLE = [("dust", "+0.7100"), ("moon", "+0.1500")]
ON_MARS = [("moon", "+0.4000"), ("comet", "+0.3500"), ("dust", "+0.3000")]


def test_the_whole_answer_comes_first(open_report: Open) -> None:
    page = open_report([full_result()])
    assert page.locator("#generation").inner_text() == "Mars is red"
    assert cards(page) == WHOLE
    assert page.locator("#proponents-list .card").first.locator(".figures").inner_text().split("\n") == [
        "+0.7100 exact score",
        "+0.7000 estimated",
    ]
    page.click("#opponents-tab")
    assert page.locator("#opponents").is_visible()
    assert not page.locator("#proponents").is_visible()
    assert page.locator("#opponents-list .id").all_inner_texts() == ["ice"]
    assert page.locator("#samples-legend .most").inner_text() == "+0.6000"
    assert page.locator("#generation-legend .most").inner_text() == "+0.7000"


def test_a_clicked_word_shows_its_own_samples(open_report: Open) -> None:
    page = open_report([full_result()])
    word(page, "Mars").click()
    assert cards(page) == ON_MARS
    assert page.locator("#selection").inner_text().startswith("Samples behind “Mars”")
    assert page.locator("#tooltip").inner_text() == 'word\n"Mars"\nfrom the proponents\n+0.7000'
    moon = page.locator("#proponents-list .card").first.locator(".figures")
    assert moon.inner_text().split("\n") == ["+0.4000 on these words", "+0.4200 estimated", "+0.1500 whole answer"]
    assert page.locator("#samples-legend .most").inner_text() == "+0.5000"
    assert page.locator("#proponents .meaning").inner_text().endswith("made these words more likely.")
    assert strengths(page.locator(".card").first.locator(".token")) == pytest.approx(
        [1, -(0.2 ** (2 / 3)), 0], abs=1e-3
    )
    assert word(page, "Mars").get_attribute("aria-pressed") == "true"
    word(page, "Mars").click()
    assert cards(page) == WHOLE
    word(page, "Mars").click()
    page.click("#clear")
    assert cards(page) == WHOLE


def test_tokens_of_a_word_are_added_up_and_opponents_set_apart(open_report: Open) -> None:
    page = open_report([full_result()])
    word(page, "red").click()
    assert cards(page) == [("dust", "+0.4000"), ("comet", "+0.0600")]
    assert cards(page, "opponents") == [("moon", "−0.3000")]
    assert page.locator("#opponents-count").inner_text() == "1"
    word(page, "Mars").click(modifiers=["Control"])
    assert cards(page) == [("dust", "+0.7000"), ("comet", "+0.4100"), ("moon", "+0.1000")]
    assert page.locator("#selected-words").inner_text() == "Mars … red"


def test_a_card_says_that_it_lacks_a_token(open_report: Open) -> None:
    page = open_report([full_result()])
    word(page, "Mars").click()
    word(page, "is").click(modifiers=["Shift"])
    comet = page.locator("#proponents-list .card").filter(has_text="comet")
    assert "in the lists of 1 of 2 tokens" in comet.inner_text()


def test_dragging_selects_from_word_to_word(open_report: Open) -> None:
    page = open_report([full_result()])
    word(page, "red").hover()
    page.mouse.down()
    word(page, "is").hover()
    word(page, "Mars").hover()
    page.mouse.up()
    assert page.locator("#selected-words").inner_text() == "Mars is red"
    assert page.locator(".word.selected").count() == 3
    # dust 0.3 + 0.01 + 0.4, moon 0.4 − 0.3
    assert cards(page) == [("dust", "+0.7100"), ("comet", "+0.4100"), ("moon", "+0.1000")]
    assert page.evaluate("String(getSelection())") == ""


def test_the_keyboard_does_what_the_mouse_does(open_report: Open) -> None:
    page = open_report([full_result()])
    word(page, "Mars").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.textContent") == "is"
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert cards(page) == ON_MARS
    page.keyboard.press("Shift+ArrowRight")
    assert page.locator("#selected-words").inner_text() == "Mars is"
    page.keyboard.press("Escape")
    assert cards(page) == WHOLE
    page.keyboard.press("End")
    page.keyboard.press(" ")
    assert page.locator("#selected-words").inner_text() == "end of the answer"
    assert page.locator(".word[tabindex='0']").count() == 1


def test_without_lists_of_tokens_the_same_samples_are_ordered_anew(open_report: Open) -> None:
    page = open_report([full_result(by_token=False)])
    word(page, "Mars").click()
    assert cards(page) == [("moon", "+0.4000"), ("dust", "+0.3000")]
    assert page.locator("#selection").inner_text().startswith("These samples, ordered by influence on")


def test_without_matrices_the_lists_of_tokens_serve(open_report: Open) -> None:
    result = full_result()
    bare = tuple(dataclasses.replace(hit, matrix=()) for hit in result.proponents)
    page = open_report([dataclasses.replace(result, proponents=bare)])
    word(page, "Mars").click()
    assert cards(page) == [("moon", "+0.4200"), ("comet", "+0.3500"), ("dust", "+0.3100")]
    assert page.locator("#samples-unshaded").is_visible()
    assert set(strengths(page.locator(".token"))) == {0}


def test_a_samples_token_lights_the_words_it_speaks_to(open_report: Open) -> None:
    page = open_report([full_result()])
    token(page, "moon", "moon").click()
    # Mars 0.5, is 0, red −0.2, end 0
    assert strengths(page.locator(".word")) == pytest.approx([1, 0, -(0.4 ** (2 / 3)), 0], abs=1e-3)
    assert page.locator(".word.lit").all_inner_texts() == ["Mars", "red"]
    assert "“moon”" in page.locator("#generation-legend .what").inner_text()
    assert page.locator("#generation-legend .most").inner_text() == "+0.5000"
    word(page, "red").hover()
    assert "from “moon”\n−0.2000" in page.locator("#tooltip").inner_text()
    page.keyboard.press("Escape")
    assert page.locator(".word.lit").count() == 0
    assert page.locator("#generation-legend .most").inner_text() == "+0.7000"


def test_tooltips_say_the_numbers(open_report: Open) -> None:
    page = open_report([full_result()])
    token(page, "dust", "dust").hover()
    assert page.locator("#tooltip").inner_text().split("\n") == [
        "token", '"dust"', "influence", "+0.6000", "of the sample's sum", "+0.7100",
    ]  # fmt: skip
    page.keyboard.press("Escape")
    assert not page.locator("#tooltip").is_visible()
    token(page, "dust", "dust").focus()
    page.keyboard.press("ArrowRight")
    assert '"storm"' in page.locator("#tooltip").inner_text()
    assert token(page, "dust", "storm").get_attribute("aria-describedby") == "tooltip"
    page.keyboard.press("ArrowRight")
    assert 'token\n""' in page.locator("#tooltip").inner_text()
    word(page, "Mars").click()
    token(page, "moon", "light").hover()
    assert "on the selected words\n−0.1000" in page.locator("#tooltip").inner_text()
    assert "on the whole answer\n−0.1500" in page.locator("#tooltip").inner_text()


def test_the_part_that_was_asked_about_is_marked(open_report: Open) -> None:
    page = open_report([full_result(spans=((5, 11),))])
    assert page.locator("#generation .asked").all_inner_texts() == ["is", " ", "red"]
    page.click("#select-asked")
    assert page.locator("#selected-words").inner_text() == "is red"


def test_the_focus_stays_where_it_was_when_cards_change_places(open_report: Open) -> None:
    page = open_report([full_result()])
    word(page, "Mars").click()
    token(page, "dust", "dust").focus()
    page.keyboard.press("Enter")
    assert page.locator(".token.picked").inner_text() == "dust"
    assert page.evaluate("document.activeElement.textContent") == "dust"
    page.keyboard.press("Escape")
    assert cards(page) == WHOLE
    assert page.evaluate("document.activeElement.textContent") == "dust"


def test_queries_are_picked(open_report: Open) -> None:
    page = open_report([full_result(), plain_result("one", "two", generation="Other", prompt="Asked")])
    word(page, "Mars").click()
    page.click("#next")
    assert page.locator("#generation").inner_text() == "Other"
    assert page.locator("#prompt").inner_text() == "Asked"
    assert cards(page) == [("s1", "+1.0000"), ("s2", "+0.5000")]
    assert page.locator("#next").is_disabled()
    page.select_option("#query", index=0)
    assert cards(page) == WHOLE
    assert page.locator(".word.selected").count() == 0
