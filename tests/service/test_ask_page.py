"""The page as text: its policy, and that it holds nothing of the store."""

from __future__ import annotations

import base64
import hashlib
import re

import httpx
import pytest

from rapidin.service.ask_page import ask_page
from tests.report.test_report_page import Elements


def test_the_policy_allows_the_pages_own_parts_and_nothing_else(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["frame-ancestors"] == "'none'"
    assert rules["form-action"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert "unsafe" not in policy
    assert "http" not in policy
    digests = {
        f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
        for name, text in Elements(answer.text).texts
        if name in ("script", "style")
    }
    assert set(re.findall(r"'(sha256-[^']+)'", policy)) == digests
    for name, value in (("referrer-policy", "no-referrer"), ("x-content-type-options", "nosniff")):
        assert answer.headers[name] == value


def test_nothing_outside_is_named_and_nothing_is_inline(client: httpx.Client) -> None:
    page = ask_page().text
    assert page == client.get("/").text
    assert "http:" not in page and "https:" not in page and "url(" not in page
    assert "innerHTML" not in page and "eval(" not in page and "document.write" not in page
    for _, attributes in Elements(page).tags:
        assert not any(name.startswith("on") or name in ("src", "style", "action") for name in attributes)


@pytest.mark.parametrize("method", ["HEAD", "POST", "DELETE"])
def test_it_can_only_be_fetched(client: httpx.Client, method: str) -> None:
    assert client.request(method, "/", headers={"Content-Type": "application/json"}).status_code == 405


def test_every_label_is_of_something() -> None:
    tags = Elements(ask_page().text).tags
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    assert len(ids) == sum("id" in attributes for _, attributes in tags)
    named = {attributes["for"] for tag, attributes in tags if tag == "label" and "for" in attributes}
    assert named <= ids
    described = {attributes["aria-describedby"] for _, attributes in tags if "aria-describedby" in attributes}
    assert described <= ids
