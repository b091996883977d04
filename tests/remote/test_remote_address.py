"""Addresses of servers, and where a key may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink.errors import OptionError
from skylink.remote.address import Address
from skylink.remote.options import RemoteOptions

KEY = "sk-secret-123"


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("http://localhost:8000/v1", "http://localhost:8000"),
        ("https://example.org/models/v1/", "https://example.org/models"),
        ("HTTP://Example.ORG:80/V1", "http://example.org:80/V1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_address_with_and_without_v1(url: str, root: str) -> None:
    address = Address.parse(url)
    assert address.root == root
    assert address.url("/v1/models") == f"{root}/v1/models"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://host",
        "http://",
        "http://:8000",
        "http://host:port",
        "http://host:99999999",
        "http://[::1",
        "http://host/v1?key=1",
        "http://host/v1#x",
        "http://ho st",
        "http://host/\n",
        "http://hôst",
        f"http://user:{KEY}@host",
        f"http://{KEY}@host",
    ],
)
def test_what_is_no_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(OptionError) as caught:
        Address.parse(url)
    assert KEY not in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.hint


@given(st.text(max_size=40), st.sampled_from(["", "http://", "https://", "http://["]))
def test_any_text_is_an_address_or_a_clear_error(text: str, scheme: str) -> None:
    try:
        address = Address.parse(scheme + text)
    except OptionError:
        return
    assert Address.parse(address.root).root in (address.root, address.root.removesuffix("/v1"))


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://localhost:1", True),
        ("http://127.0.0.1", True),
        ("http://127.8.9.1", True),
        ("http://[::1]:1", True),
        ("http://127.0.0.1.example.org", False),
        ("http://localhost.example.org", False),
        ("http://192.168.0.7", False),
        ("http://0.0.0.0", False),
    ],
)
def test_loopback_is_this_machine_alone(url: str, loopback: bool) -> None:
    assert Address.parse(url).loopback is loopback


def test_a_key_goes_only_where_nobody_can_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", f" {KEY}\n")
    assert Address.parse("https://example.org").key("A_KEY", plain=False) == KEY
    assert Address.parse("http://localhost:8000").key("A_KEY", plain=False) == KEY
    assert Address.parse("http://example.org").key("A_KEY", plain=True) == KEY
    with pytest.raises(OptionError, match="unencrypted") as caught:
        Address.parse("http://example.org").key("A_KEY", plain=False)
    assert KEY not in f"{caught.value.message} {caught.value.hint}"


def test_no_key_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    assert Address.parse("http://example.org").key("A_KEY", plain=False) is None


@pytest.mark.parametrize("value", ["two words", "line\nbreak", "naïve"])
def test_what_is_no_key_is_not_shown(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("A_KEY", value)
    with pytest.raises(OptionError, match="A_KEY") as caught:
        Address.parse("https://example.org").key("A_KEY", plain=False)
    assert value not in caught.value.message


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "best"},
        {"api": "rest"},
        {"image_format": "gif"},
        {"template": "pairwise-v1"},
        {"api": "score", "mode": "pairwise"},
        {"api": "score", "template": "pointwise-v1"},
        {"concurrency": 0},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
        {"retries": -1},
        {"image_px": 1},
        {"key_env": ""},
    ],
)
def test_options_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        RemoteOptions(**wrong)  # type: ignore[arg-type]
