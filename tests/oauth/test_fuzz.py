"""Whatever is sent to the authorization and the token endpoint, nobody is answered by a fault of the server."""

from typing import Any
from urllib.parse import quote_from_bytes, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.answers import INSIDE
from tests.conftest import Api
from tests.oauth.conftest import CALLBACK, CHALLENGE, VERIFIER, Browser
from tokenserver.clients.metadata import GRANT_TYPES, RESPONSE_TYPES

# PostgreSQL refuses what SQLite hides.
pytestmark = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)

NAMES = [
    *("client_id", "client_secret", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce"),
    *("code_challenge", "code_challenge_method", "prompt", "max_age", "id_token_hint", "login_hint", "claims"),
    *("ui_locales", "acr_values", "request", "request_uri", "registration", "resource", "audience", "display"),
    *(
        "grant_type",
        "code",
        "code_verifier",
        "username",
        "password",
        "refresh_token",
        "device_code",
        "subject_token",
    ),
    *("subject_token_type", "actor_token", "actor_token_type", "requested_token_type", "client_assertion"),
    "client_assertion_type",
]
GOOD = [
    *("app", CALLBACK, "openid", "none", "login", "S256", CHALLENGE, VERIFIER, "0", "{}", "{", "[]", "null"),
    *('{"userinfo": {"name": null}}', '{"id_token": {"acr": {"essential": true, "values": ["9"]}}}', "form_post"),
    *GRANT_TYPES,
    *RESPONSE_TYPES,
    "urn:ietf:params:oauth:token-type:access_token",
    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    "eyJhbGciOiJub25lIn0.e30.",
    "eyJhbGciOiJSUzI1NiJ9.e30.AAAA",
    "rt_AAAA",
    "ac_AAAA",
]
# Any text; with lone surrogates and NUL; bytes that are no UTF-8; and far too much of one character.
TEXT = st.text(st.characters(exclude_categories=()), max_size=40).map(lambda s: s.encode("utf-8", "surrogatepass"))
ANY = st.one_of(
    st.sampled_from(GOOD).map(str.encode),
    TEXT,
    st.binary(max_size=40),
    st.tuples(st.sampled_from(b"a\0\xff%").map(lambda b: bytes([b])), st.sampled_from([300, 5000, 1 << 20])).map(
        lambda each: each[0] * each[1]
    ),
)
PAIRS = st.lists(st.tuples(st.sampled_from(NAMES).map(str.encode) | TEXT, ANY), max_size=8)
# Of a request that would be granted, some parameters are replaced or repeated.
AUTHORIZE = {
    "client_id": "app",
    "redirect_uri": CALLBACK,
    "response_type": "code",
    "scope": "openid",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}
FORM = "application/x-www-form-urlencoded"
BOUNDS = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def encoded(pairs: list[tuple[bytes, bytes]]) -> str:
    return "&".join(f"{quote_from_bytes(name)}={quote_from_bytes(value)}" for name, value in pairs)


def merged(good: dict[str, str], pairs: list[tuple[bytes, bytes]], *, repeat: bool) -> list[tuple[bytes, bytes]]:
    replaced = set() if repeat else {name for name, _ in pairs}
    kept = [(name.encode(), value.encode()) for name, value in good.items() if name.encode() not in replaced]
    return kept + pairs


def check(response: Any) -> None:
    assert response.status_code < 500, response.text
    assert not INSIDE.search(response.text), response.text
    assert response.headers["X-Request-ID"]
    if "Location" in response.headers:
        parts = urlsplit(response.headers["Location"])
        assert (parts.scheme, parts.netloc) in {("", ""), ("https", "app.example")}


def test_authorization_endpoint(browser: Browser, site):
    @BOUNDS
    @given(PAIRS, st.booleans(), st.booleans())
    def ask(pairs: list[tuple[bytes, bytes]], repeat: bool, by_post: bool) -> None:
        sent = encoded(merged(AUTHORIZE, pairs, repeat=repeat))
        if by_post:
            check(browser.http.post("/oauth/authorize", data=sent, content_type=FORM))
        else:
            check(browser.http.get("/oauth/authorize", query_string=sent))

    ask()
    assert "code=" in browser.authorize(site).headers["Location"]


def test_token_endpoint(api: Api, browser: Browser, site):
    code = {"grant_type": "authorization_code", "redirect_uri": CALLBACK, "code_verifier": VERIFIER, **site.form}

    @BOUNDS
    @given(PAIRS, st.booleans(), st.sampled_from([code, {"grant_type": "refresh_token", **site.form}, {}]))
    def ask(pairs: list[tuple[bytes, bytes]], repeat: bool, good: dict[str, str]) -> None:
        sent = encoded(merged(good, pairs, repeat=repeat))
        response = api.http.post("/oauth/token", data=sent, content_type=FORM)
        check(response)
        assert response.mimetype == "application/json"
        assert response.status_code in {400, 401, 413}

    ask()
