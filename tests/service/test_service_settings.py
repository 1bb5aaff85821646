"""Who may be answered, decided before anything listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidin.errors import SettingError
from rapidin.service import Limits, ServiceSettings
from rapidin.service.service_settings import read_token

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_no_token(host: str) -> None:
    settings = ServiceSettings(host=host)
    assert settings.is_loopback
    assert settings.names == {"localhost", "127.0.0.1", "::1", host}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_others_need_a_token(host: str) -> None:
    with pytest.raises(SettingError, match=r"--token-file FILE, or set RAPIDIN_TOKEN"):
        ServiceSettings(host=host)
    assert ServiceSettings(host=host, token=TOKEN).names is None


def test_another_name_needs_a_token() -> None:
    with pytest.raises(SettingError, match="--allow-host"):
        ServiceSettings(allowed_hosts=("search.example",))
    settings = ServiceSettings(allowed_hosts=("Search.Example",), token=TOKEN)
    assert settings.names is not None
    assert "search.example" in settings.names


@pytest.mark.parametrize("token", ["short", "x" * 5_000, "with blank 0123456789", "ümlaut0123456789", "a\nb" * 10])
def test_a_token_must_be_hard_to_guess_and_fit_a_header(token: str) -> None:
    with pytest.raises(SettingError, match="the token cannot be used"):
        ServiceSettings(token=token)


def test_the_token_is_never_shown() -> None:
    assert TOKEN not in repr(ServiceSettings(token=TOKEN))


@pytest.mark.parametrize("host", ["", "a b"])
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(SettingError, match="no address of this machine"):
        ServiceSettings(host=host)


def test_the_file_comes_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file, {"RAPIDIN_TOKEN": "other"}) == TOKEN
    assert read_token(None, {"RAPIDIN_TOKEN": "other"}) == "other"
    assert read_token(None, {"RAPIDIN_TOKEN": ""}) is None
    assert read_token(None, {}) is None


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), (b" \n", "is empty"), (b"\xff\xfe", "not text")]
)
def test_a_file_without_a_token(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingError, match=reason):
        read_token(file, {"RAPIDIN_TOKEN": TOKEN})


@pytest.mark.parametrize("name", ["k", "body", "tokens", "seconds"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_are_positive(name: str, value: float) -> None:
    with pytest.raises(SettingError, match=name):
        Limits(**{name: value})


@pytest.mark.parametrize(("k", "limit", "expected"), [(10, 300, 30), (100, 150, 150), (100, 50, 0), (5, 0, 0)])
def test_as_many_exact_influences_as_the_limit_allows(k: int, limit: int, expected: int) -> None:
    assert Limits(rerank=limit).default_rerank(k) == expected
