"""The flags of both cookies (OWASP ASVS 3.3.1 to 3.3.4)."""

from collections.abc import Callable

import pytest
from flask import Flask, Response

from tokenserver.web.cookies import Cookies, new_cookie


def headers_of(cookies: Cookies, work: Callable[[Response], None], sent: str = "") -> list[str]:
    response = Response()
    with Flask("t").test_request_context("/", headers={"Cookie": sent} if sent else {}):
        work(response)
    return response.headers.getlist("Set-Cookie")


@pytest.mark.parametrize(
    ("issuer", "prefix", "flags"),
    [
        ("https://id.example", "__Host-", "Secure; HttpOnly; Path=/; SameSite=Lax"),
        ("http://127.0.0.1:8000", "tokenserver_", "HttpOnly; Path=/; SameSite=Lax"),
    ],
)
def test_names_and_flags(issuer: str, prefix: str, flags: str):
    """__Host-: no other host can set it (Zitadel GHSA-mq4x-r2w3-j7mr). No Domain, no lifetime."""
    cookies, value = Cookies(issuer), new_cookie()
    for name, keep in (("session", cookies.keep_session), ("browser", cookies.keep_browser)):
        assert headers_of(cookies, lambda r, keep=keep: keep(r, value)) == [f"{prefix}{name}={value}; {flags}"]
    gone, _ = headers_of(cookies, cookies.forget_session)
    assert "Max-Age=0" in gone
    assert all(flag in gone for flag in flags.split("; "))
    # A browser that has it is not sent it again.
    sent = f"{prefix}browser={value}"
    assert headers_of(cookies, lambda r: cookies.keep_browser(r, value), sent) == []


def test_what_this_server_can_t_have_made_counts_as_none():
    cookies = Cookies("http://127.0.0.1:8000")
    for value in ("", "x", "a" * 42, "a" * 44, "*" * 43, "a" * 42 + "\u00e9"):
        sent = f"tokenserver_session={value}; tokenserver_browser={value}"
        with Flask("t").test_request_context("/", headers={"Cookie": sent.encode().decode("latin-1")}):
            assert cookies.session() is None, value
            assert cookies.browser() is None, value
