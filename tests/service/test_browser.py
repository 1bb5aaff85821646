"""The page in a real browser, in front of a real service."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from rapidin.service import Limits
from tests.service.conftest import QUESTION, SCRIPT, GatedSearcher, Running, running, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

Open = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens the page of a server; at the end nothing else was asked for, and no script failed."""
    complaints: list[str] = []
    requests: list[str] = []
    addresses: set[str] = set()
    contexts = []

    def open_one(server: Running, fragment: str = "", width: int = 1280, **options: Any) -> Page:
        addresses.add(server.url)
        context = browser.new_context(viewport={"width": width, "height": 844}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            # What the service refuses, the browser tells as an error of its own.
            lambda message: "Failed to load resource" in message.text or complaints.append(message.text),
        )
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{server.url}/{fragment}")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []
    assert all(url == "data:," or any(url.startswith(f"{address}/") for address in addresses) for url in requests)
    assert not any("#" not in url and "colour" in url for url in requests)


def ask(page: Page, prompt: str = "Name the colour.", generation: str = "It is blue 99, and not red.") -> None:
    page.locator("#facts div").first.wait_for()
    page.fill("#ask-prompt", prompt)
    page.fill("#ask-generation", generation)
    page.fill("#ask-k", "3")
    page.click("#search")
    page.locator("#search:enabled").wait_for()


def ids(page: Page, side: str = "proponents") -> list[str]:
    return page.locator(f"#{side}-list .id").all_text_contents()


def test_a_search_is_shown(server: Running, open_page: Open) -> None:
    page = open_page(server)
    assert not page.locator("#result").is_visible()
    ask(page)
    assert page.locator("#generation").inner_text().startswith("It is blue 99, and not red.")
    with server.client() as client:
        found = client.post("/v1/search", json={**QUESTION, "opponents": True}).json()
    assert ids(page) == [hit["id"] for hit in found["proponents"]]
    assert ids(page, "opponents") == [hit["id"] for hit in found["opponents"]]
    page.click("#opponents-tab")
    assert page.locator("#opponents .card").first.is_visible()
    assert "Samples37" in page.locator("#facts").inner_text().replace("\n", "").replace(" ", "")


def test_words_can_be_pointed_at(server: Running, open_page: Open) -> None:
    page = open_page(server)
    ask(page)
    page.locator(".word", has_text="blue").click()
    assert page.locator("#selected-words").inner_text() == "blue"
    assert page.locator("#proponents .card").count() > 0
    page.keyboard.press("Escape")
    assert not page.locator("#selection").is_visible()


def test_a_second_search_replaces_the_first(server: Running, open_page: Open) -> None:
    page = open_page(server)
    ask(page)
    page.locator(".word", has_text="blue").click()
    ask(page, generation="It is green.")
    assert page.locator("#generation").inner_text().startswith("It is green.")
    assert not page.locator("#selection").is_visible()
    page.locator(".word", has_text="green").click()
    assert page.locator("#selected-words").inner_text() == "green"


def test_the_model_answers(server: Running, open_page: Open) -> None:
    page = open_page(server)
    page.click("#options summary")
    page.fill("#ask-new", "4")
    ask(page, generation="")
    assert page.locator("#answer-heading").inner_text() == "The model’s answer"
    assert page.locator("#ask-generation").input_value() == ""


def test_a_link_brings_the_same_result(server: Running, open_page: Open) -> None:
    page = open_page(server)
    page.click("#options summary")
    page.fill("#ask-where", "number<20\nsource!=red")
    page.fill("#ask-spans", "blue")
    page.uncheck("#ask-opponents")
    assert page.locator("#options-set").inner_text() == "3 set"
    ask(page)
    found = ids(page)
    assert page.locator("#generation .asked").inner_text() == "blue"
    other = open_page(server, page.url[len(server.url) + 1 :])
    other.locator("#result").wait_for()
    assert ids(other) == found
    assert other.locator("#ask-where").input_value() == "number<20\nsource!=red"
    assert not other.locator("#ask-opponents").is_checked()
    assert other.url == page.url


@pytest.mark.parametrize("text", [SCRIPT, "a&k=9#x%41+ +\n🦀 é", "'\"\\"])
def test_links_hold_any_text(server: Running, open_page: Open, text: str) -> None:
    page = open_page(server)
    page.locator("#facts div").first.wait_for()
    page.fill("#ask-prompt", text)
    page.click("#copy")
    other = open_page(server, page.url[len(server.url) + 1 :])
    assert other.locator("#ask-prompt").input_value() == text
    assert other.locator("#ask-k").input_value() == "10"
    assert other.title() == "rapidin"


def test_a_link_that_someone_made_up(server: Running, open_page: Open) -> None:
    page = open_page(server, f"#prompt={quote(SCRIPT)}&k=1e9&index=nonsense&where={quote(SCRIPT)}&rerank=-1&new=x")
    page.locator("#error").wait_for()
    assert SCRIPT[:20] in page.locator("#error").inner_text()
    assert page.title() == "rapidin"
    assert page.locator("img, script[src]").count() == 0


def test_a_script_in_a_training_row_is_shown_as_text(server: Running, open_page: Open) -> None:
    page = open_page(server)
    page.click("#options summary")
    page.fill("#ask-where", "number=1000")
    ask(page, SCRIPT, f"{SCRIPT} 1")
    assert page.locator("#proponents .card").first.inner_text().count("</script>") >= 1
    assert page.title() == "rapidin"
    assert page.locator("img").count() == 0


def test_errors_are_shown_and_do_not_stay(server: Running, open_page: Open) -> None:
    page = open_page(server)
    page.click("#options summary")
    page.fill("#ask-where", "nowhere=1")
    ask(page)
    assert "no sample has a field 'nowhere'" in page.locator("#error").inner_text()
    page.fill("#ask-where", "")
    ask(page)
    assert not page.locator("#error").is_visible()
    assert len(ids(page)) == 3


def test_what_the_form_knows_to_be_wrong_is_not_sent(server: Running, open_page: Open) -> None:
    page = open_page(server)
    page.locator("#facts div").first.wait_for()
    page.fill("#ask-prompt", "a")
    page.fill("#ask-k", "1000000000")
    page.click("#search")
    assert page.locator("#ask-k:invalid").count() == 1
    assert not page.locator("#progress").is_visible()
    page.fill("#ask-k", str(Limits().k))
    assert page.locator("#ask-k:invalid").count() == 1
    page.uncheck("#ask-tokens")
    assert page.locator("#ask-k:invalid").count() == 0


def test_it_works_by_keyboard(server: Running, open_page: Open) -> None:
    page = open_page(server)
    page.locator("#facts div").first.wait_for()
    page.focus("#ask-prompt")
    page.keyboard.type("Name the colour.")
    page.keyboard.press("Tab")
    page.keyboard.type("It is blue.")
    page.keyboard.press("Control+Enter")
    page.locator("#result").wait_for()
    assert page.evaluate("document.activeElement.id") == "result"
    page.keyboard.press("Tab")
    page.locator(".word").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("#selected-words").inner_text() == "is"


def test_a_search_can_be_given_up(store: Path, open_page: Open) -> None:
    with running(store, GatedSearcher) as server:
        page = open_page(server)
        page.locator("#facts div").first.wait_for()
        page.fill("#ask-prompt", "Name.")
        page.click("#search")
        page.locator("#progress-text", has_text=re.compile("model answers")).wait_for()
        assert page.locator("#search").is_disabled()
        page.click("#cancel")
        assert not page.locator("#progress").is_visible()
        assert page.locator("#search").is_enabled()
        wait_for(lambda: server.service.active == 0)
        server.searcher.let.release(9)
        ask(page)
        assert len(ids(page)) == 3


def test_who_waits_is_told(store: Path, open_page: Open) -> None:
    with running(store, GatedSearcher, Limits(waiting=1)) as server:
        fragment = "#prompt=Name.&generation=Blue.&k=1"
        open_page(server, fragment)
        assert server.searcher.begun.acquire(timeout=60)
        second = open_page(server, fragment)
        second.locator("#progress-text", has_text="Waiting for 1 other search").wait_for()
        third = open_page(server, fragment)
        third.locator("#error", has_text="again in").wait_for()
        assert third.locator("#search").is_enabled()
        server.searcher.let.release(9)
        second.locator("#result").wait_for()


def test_a_service_that_has_gone(store: Path, open_page: Open) -> None:
    with running(store) as server:
        page = open_page(server)
        page.locator("#facts div").first.wait_for()
    ask(page)
    assert "does not answer" in page.locator("#error").inner_text()


def test_the_token_is_asked_for_and_kept_in_the_tab_only(store: Path, open_page: Open) -> None:
    token = "0123456789abcdef"
    with running(store, token=token) as server:
        page = open_page(server)
        page.locator("#token-form").wait_for()
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.locator("#error").wait_for()
        assert page.locator("#token-form").is_visible()
        page.fill("#token", token)
        page.keyboard.press("Enter")
        page.locator("#token-form").wait_for(state="hidden")
        ask(page)
        assert len(ids(page)) == 3
        assert token not in page.url
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.reload()
        page.locator("#result").wait_for()  # the link is still there, and so is the token
        assert page.locator("#token").input_value() == ""
        other = open_page(server)
        other.locator("#token-form").wait_for()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_sticks_out(server: Running, open_page: Open, width: int) -> None:
    page = open_page(server, width=width)
    page.click("#options summary")
    ask(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#search").bounding_box()["height"] >= 32  # type: ignore[index]


def test_light_and_dark(server: Running, open_page: Open) -> None:
    def ground(page: Page) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light, dark = open_page(server, color_scheme="light"), open_page(server, color_scheme="dark")
    assert ground(light) != ground(dark)
    before = ground(light)
    light.click("#theme")
    assert ground(light) == ground(dark) != before
