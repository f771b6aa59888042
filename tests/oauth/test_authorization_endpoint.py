"""The authorization endpoint: who is answered where, by which mode, and what no answer is ever sent for."""

import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.answers import DESCRIPTION, granted
from tests.conftest import Api
from tests.oauth.conftest import CALLBACK, CHALLENGE, Browser, answer, claims_of
from tokenserver.rooms import Rooms
from tokenserver.tokens.id_token import half_hash


def page(response: Any, status: int = 400) -> Any:
    """Asserts an error page, at the endpoint's own address: nobody is sent anywhere (RFC 6749 section 4.1.2.1)."""
    assert (response.status_code, response.mimetype) == (status, "text/html"), response.text
    assert "Location" not in response.headers
    assert "OAuth error" in response.text
    assert response.headers["X-Request-ID"] in response.text
    return response


class Form(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.action, self.method = "", ""
        self.fields: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action, self.method = found["action"], found["method"]
        elif tag == "input":
            self.fields[found["name"]] = found["value"]


# Where no answer may go


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": None},
        {"client_id": "unknown"},
        {"client_id": "app\0"},
        {"client_id": "☃"},
        {"redirect_uri": None},
        {"redirect_uri": "https://evil.example/cb"},
    ],
)
def test_without_a_client_and_an_address_of_it_nobody_is_sent_anywhere(browser: Browser, site, wrong):
    """RFC 6749 section 4.1.2.1 (A15); also where an error would be the answer."""
    page(browser.authorize(site, **wrong))
    page(browser.authorize(site, **wrong, prompt="none", response_type="nope"))


@pytest.mark.parametrize(
    "uri",
    [
        CALLBACK + "/",
        CALLBACK + "?x=1",
        CALLBACK + "#x",
        CALLBACK + ";x",
        CALLBACK + "/../evil",
        CALLBACK + "%2f",
        CALLBACK + "\0",
        CALLBACK + " ",
        CALLBACK[:-1],
        CALLBACK.upper(),
        CALLBACK.replace("https", "http"),
        CALLBACK.replace("app.example", "app.example:443"),
        CALLBACK.replace("app.example", "app.example@evil.example"),
        CALLBACK.replace("app.example", "user@app.example"),
        CALLBACK.replace("app.example", "app.example.evil.example"),
        CALLBACK.replace("app.example", "appXexample"),
        CALLBACK.replace("//", "/\\"),
        "//app.example/cb",
        "/cb",
        "http://[",
        "javascript:alert(1)//https://app.example/cb",
        "JaVaScRiPt:alert(1)",
        "data:text/html,x",
        'https://app.example/cb"',
        "https://app.example/cb\r\nX-Evil: 1",
        "https://app.example/é",
    ],
)
def test_redirect_uri_is_the_registered_string(browser: Browser, site, uri):
    """RFC 9700 section 2.1 (L1): CVE-2023-6291, CVE-2024-8883, CVE-2024-52289, CVE-2020-15234, CVE-2022-36087."""
    response = page(browser.authorize(site, redirect_uri=uri))
    assert "X-Evil" not in response.headers


def test_port_of_the_loopback_interface_may_vary(browser: Browser, site_of):
    """RFC 8252 section 7.3: for addresses, not for the name localhost (section 8.3)."""
    uris = ["http://127.0.0.1/cb", "http://[::1]:9/cb", "http://localhost:9/cb"]
    site = site_of(redirect_uris=uris, token_endpoint_auth_method="none", application_type="native")
    for uri in (*uris, "http://127.0.0.1:5/cb", "http://[::1]/cb", "http://[::1]:65535/cb"):
        code = answer(browser.authorize(site, redirect_uri=uri))["code"]
        granted(browser.redeem(site, code, redirect_uri=uri))
    for uri in (
        "http://localhost:10/cb",
        "http://127.0.0.1:5/other",
        "http://127.0.0.2:5/cb",
        "http://127.0.0.1:0/cb",
        "http://127.0.0.1:99999/cb",
        "https://127.0.0.1:5/cb",
        "http://127.0.0.1:5/cb?x",
        "http://127.0.0.1:5@evil.example/cb",
    ):
        page(browser.authorize(site, redirect_uri=uri))


def test_redirect_uri_may_be_left_out_where_there_is_one_and_no_openid(browser: Browser, site_of):
    """RFC 6749 section 3.1.2.3; OIDC Core section 3.1.2.1: with openid it is REQUIRED."""
    one, two = site_of("one"), site_of("two", redirect_uris=[CALLBACK, CALLBACK + "2"])
    code = answer(browser.authorize(one, redirect_uri=None, scope="posts:create"))["code"]
    granted(browser.redeem(one, code, redirect_uri=None))
    page(browser.authorize(one, redirect_uri=None))
    page(browser.authorize(two, redirect_uri=None, scope="posts:create"))


def test_query_of_the_registered_uri_survives(browser: Browser, site_of):
    """RFC 6749 section 3.1.2."""
    site = site_of(redirect_uris=[CALLBACK + "?dummy1=lorem&dummy2=ipsum"])
    for found in (answer(browser.authorize(site)), answer(browser.authorize(site, response_type="nope"))):
        assert (found["dummy1"], found["dummy2"]) == ("lorem", "ipsum")


def test_repeated_parameters_are_refused(browser: Browser, site):
    """RFC 6749 section 3.1 (A2), CVE-2026-9689."""
    pairs = [("client_id", "app"), ("redirect_uri", CALLBACK), ("response_type", "code"), ("scope", "openid")]
    pairs += [("code_challenge", CHALLENGE), ("code_challenge_method", "S256")]
    assert "code" in answer(browser.http.get("/oauth/authorize?" + urlencode(pairs)))
    for name, value in pairs:
        for again in (value, "other", ""):
            page(browser.http.get("/oauth/authorize?" + urlencode([*pairs, (name, again)])))
            page(browser.http.post("/oauth/authorize", data=urlencode([*pairs, (name, again)]), content_type=FORM))


FORM = "application/x-www-form-urlencoded"


# Errors that the client is told


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "nope"}, "unsupported_response_type"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code code"}, "unsupported_response_type"),
        ({"response_type": "id_token"}, "unauthorized_client"),
        ({"response_type": "code id_token"}, "unauthorized_client"),
        ({"scope": "nope"}, "invalid_scope"),
        ({"scope": "openid  profile"}, "invalid_scope"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "nope"}, "invalid_request"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"max_age": "x"}, "invalid_request"),
        ({"max_age": "١"}, "invalid_request"),
        ({"max_age": "9" * 400}, "invalid_request"),
        ({"response_mode": "nope"}, "invalid_request"),
        ({"registration": "{}"}, "registration_not_supported"),
        ({"id_token_hint": "x"}, "invalid_request"),
        ({"claims": "{"}, "invalid_request"),
        ({"resource": "https://other.example"}, "invalid_target"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": "s256"}, "invalid_request"),
        ({"code_challenge": CHALLENGE[:-1]}, "invalid_request"),
        ({"code_challenge": CHALLENGE + "="}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"request": "x"}, "invalid_request_object"),
        ({"request_uri": "https://app.example/request"}, "invalid_request_uri"),
        ({"request": "x", "request_uri": "y"}, "invalid_request"),
    ],
)
def test_other_errors_go_to_the_client(rooms: Rooms, browser: Browser, site, wrong, error):
    """RFC 6749 section 4.1.2.1 (A16, D3, I1, M4)."""
    place = "fragment" if "id_token" in str(wrong.get("response_type")) else "query"
    found = answer(browser.authorize(site, **wrong), place)
    assert found.keys() == {"error", "error_description", "state", "iss"}
    assert (found["error"], found["state"], found["iss"]) == (error, "the state", rooms.settings.issuer)
    assert DESCRIPTION.fullmatch(found["error_description"])


def test_public_clients_need_pkce(browser: Browser, site_of):
    """RFC 9700 section 2.1.1 (L3)."""
    site = site_of(token_endpoint_auth_method="none")
    found = answer(browser.authorize(site, code_challenge=None, code_challenge_method=None))
    assert found["error"] == "invalid_request"
    granted(browser.redeem(site, browser.code(site)))


def test_state_comes_back_byte_for_byte(browser: Browser, site):
    """RFC 6749 section 4.1.2; none where none was sent."""
    for state in ("x" * 128, "a b+c%20&=#?", "é☃\U0001f600", '"<script>', " "):
        assert answer(browser.authorize(site, state=state))["state"] == state
        assert answer(browser.authorize(site, state=state, scope="nope"))["state"] == state
    assert "state" not in answer(browser.authorize(site, state=None))
    assert "state" not in answer(browser.authorize(site, state=None, scope="nope"))


def test_unknown_parameters_and_hints_break_nothing(browser: Browser, site):
    """RFC 6749 section 3.1; OIDC Core section 3.1.2.1: display, ui_locales, claims_locales, acr_values."""
    more = {"extra": "foobar", "display": "popup", "ui_locales": "se", "claims_locales": "se", "acr_values": "1 2"}
    assert "code" in answer(browser.authorize(site, **more, login_hint="ann"))
    assert "code" in answer(browser.authorize(site, nonce=None))


def test_post_is_as_good_as_get(browser: Browser, site):
    """OIDC Core section 3.1.2.1."""
    granted(browser.redeem(site, answer(browser.authorize(site, "POST"))["code"]))
    page(browser.http.post("/oauth/authorize?client_id=app", data={"redirect_uri": CALLBACK}))
    page(browser.http.post("/oauth/authorize", json={"client_id": "app"}))


# Response types and modes

HYBRID = {
    "grant_types": ["authorization_code", "implicit", "refresh_token"],
    "response_types": ["code", "code id_token", "code token", "code id_token token", "id_token", "id_token token"],
}


@pytest.mark.parametrize("response_type", HYBRID["response_types"])
def test_response_types(api: Api, browser: Browser, site_of, response_type: str):
    """OIDC Core sections 3.2.2.5, 3.2.2.10, 3.3.2.5, 3.3.2.11: what comes, where, and tied together by hashes."""
    site = site_of(**HYBRID)
    words = set(response_type.split())
    found = answer(
        browser.authorize(site, response_type=" ".join(reversed(response_type.split()))),
        "query" if words == {"code"} else "fragment",
    )
    expected = {"state", "iss", "session_state"} | ({"code"} & words) | ({"id_token"} & words)
    expected |= {"access_token", "token_type", "expires_in", "scope"} if "token" in words else set()
    assert found.keys() == expected
    if "id_token" in words:
        claims = claims_of(found["id_token"])
        assert (claims["nonce"], claims["aud"]) == ("the nonce", "app")
        for name, value in (("at_hash", "access_token"), ("c_hash", "code")):
            assert claims.get(name) == (half_hash("RS256", found[value]) if value in found else None)
    if "token" in words:
        assert (found["token_type"], found["expires_in"]) == ("Bearer", "300")
        granted(api.me(found["access_token"]))
    if "code" in words:
        tokens = granted(browser.redeem(site, found["code"]))
        if "id_token" in words:
            both = [claims_of(found["id_token"]), claims_of(tokens["id_token"])]
            assert {(each["iss"], each["sub"]) for each in both} == {(both[0]["iss"], both[0]["sub"])}
        browser.redeem(site, found["code"])  # a replay ends what the front channel brought, too
        if "token" in words:
            assert api.me(found["access_token"]).status_code == 401


def test_front_channel_id_token_needs_openid_and_a_nonce(browser: Browser, site_of):
    """OIDC Core sections 3.2.2.1 and 3.3.2.1."""
    site = site_of(**HYBRID)
    for response_type in ("id_token", "id_token token", "code id_token", "code id_token token"):
        for wrong in ({"nonce": None}, {"scope": "posts:create"}):
            found = answer(browser.authorize(site, response_type=response_type, **wrong), "fragment")
            assert found["error"] == "invalid_request"
    assert "code" in answer(browser.authorize(site, response_type="code token", nonce=None), "fragment")


def test_tokens_never_travel_in_a_query(browser: Browser, site_of):
    """Multiple Response Types section 5: an error, in the fragment."""
    site = site_of(**HYBRID)
    found = answer(browser.authorize(site, response_type="code token", response_mode="query"), "fragment")
    assert found["error"] == "invalid_request"
    assert "code" in answer(browser.authorize(site, response_mode="fragment"), "fragment")


@pytest.mark.parametrize("response_type", ["code", "code id_token token", "id_token"])
def test_form_post(browser: Browser, site_of, response_type: str):
    """Form Post Response Mode: errors too; values are escaped for HTML and not by percent."""
    site = site_of(redirect_uris=[CALLBACK + "?a=1&b=2"], **HYBRID)
    state = """a "quoted" <state> & 'more' é"""
    for wrong in ({}, {"prompt": "none", "max_age": "0"}):
        response = browser.authorize(
            site, response_type=response_type, response_mode="form_post", state=state, **wrong
        )
        assert (response.status_code, response.mimetype) == (200, "text/html")
        form = Form(response.text)
        assert (form.action, form.method) == (CALLBACK + "?a=1&b=2", "post")
        assert form.fields["state"] == state
        if wrong:
            assert form.fields["error"] == "login_required"
        else:
            assert ("code" in form.fields) == ("code" in response_type)
            assert ("id_token" in form.fields) == ("id_token" in response_type)
        policy = response.headers["Content-Security-Policy"]
        assert "form-action https://app.example;" in policy
        assert "'unsafe-inline'" not in policy
        assert "no-store" in response.headers["Cache-Control"]
        assert re.search(r"<script>document\.forms\[0\]\.submit\(\)</script>", response.text)


# Resources


def test_resource_picks_the_audience(browser: Browser, site_of):
    """RFC 8707 sections 2.1 and 2.2."""
    one, two = "https://one.example/", "https://two.example/"
    site = site_of(audience=[one, two])

    def audience(asked: list[str], then: list[str]) -> Any:
        pairs = [("client_id", "app"), ("redirect_uri", CALLBACK), ("response_type", "code"), ("scope", "openid")]
        pairs += [("code_challenge", CHALLENGE), ("code_challenge_method", "S256")]
        pairs += [("resource", each) for each in asked]
        code = answer(browser.http.get("/oauth/authorize?" + urlencode(pairs)))["code"]
        response = browser.redeem(site, code, **({"resource": then[0]} if then else {}))
        return (
            claims_of(response.json["access_token"])["aud"]
            if response.status_code == 200
            else response.json["error"]
        )

    assert audience([], []) == [one, two]
    assert audience([one], []) == one
    assert audience([one, two], [two]) == two
    assert audience([one], [two]) == "invalid_target"
    assert audience([], ["https://three.example"]) == "invalid_target"
