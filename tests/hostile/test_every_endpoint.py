"""What must hold for every endpoint, also for those that are still to come: forms are this browser's own, nothing
is made from the Host header, nobody is led elsewhere.
"""

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.answers import word
from tests.conftest import PASSWORD, Api, bearer
from tests.hostile.every_endpoint import every_endpoint

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

# By GET or POST a client sends somebody here: it changes nothing by itself (OIDC Core section 3.1.2.1).
ASKED_BY_CLIENTS = "/oauth/authorize"
# It has a proof of its own in the place of `csrf`, and asks again without it.
CONFIRMED = "/oauth/logout"
# Closed to what says that it came through a proxy.
FOR_INSIDERS = "/metrics"
FROM_ELSEWHERE = (
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "null"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:8000.evil.example"},
    {"Origin": "http://127.0.0.1:8001"},
    {"Origin": "https://127.0.0.1:8000"},
)
HOSTS = (
    "evil.example",
    "evil.example:8000",
    "127.0.0.1:8000@evil.example",
    "evil.example/",
    "[::1",
    'e"><evil.example',
)
FORWARDED = {
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "evil.example",
    "X-Forwarded-Prefix": "//evil.example",
    "X-Forwarded-Port": "666",
    "Forwarded": "host=evil.example;proto=https",
    "X-Original-URL": "//evil.example/",
    "X-Rewrite-URL": "//evil.example/",
}
ELSEWHERE = (
    *("https://evil.example/", "//evil.example/", "/\\evil.example", "/\t/evil.example", "\\\\evil.example"),
    *(
        "https:evil.example",
        "/%09/evil.example",
        "/%5Cevil.example",
        "http:///evil.example",
        "javascript:evil.example",
    ),
)
NEXT = ("next", "return_to", "returnTo", "redirect", "redirect_uri", "url", "continue", "resume", "back", "target")


def csrf_of(browser: FlaskClient) -> str:
    return re.findall(r'name="csrf" value="([^"]+)"', browser.get("/login").text)[0]


def signed_in(app: Flask) -> tuple[FlaskClient, str]:
    """A browser, and its word for forms."""
    browser = app.test_client()
    csrf = csrf_of(browser)
    answer = browser.post("/login", data={"csrf": csrf, "username": "ann", "password": PASSWORD})
    assert answer.status_code == 303
    return browser, csrf


def forms(app: Flask) -> list[str]:
    """Where pages lead: what takes a POST and speaks HTML."""
    client = app.test_client()
    posts = {path for path, method in every_endpoint(app) if method == "POST"}
    pages = {path for path in posts if client.open(path, method="PROPFIND").mimetype == "text/html"}
    return sorted(pages - {ASKED_BY_CLIENTS, CONFIRMED})


def is_signed_in(browser: FlaskClient) -> bool:
    return "sign-out" in browser.get("/account").text


def test_a_form_is_taken_from_this_browser_s_own_page_alone(app: Flask, api: Api):
    """OWASP ASVS 3.5.1 and 3.5.2; for the sign-in itself too: nobody is signed in as somebody else."""
    api.register()
    found = forms(app)
    assert set(found) >= {"/login", "/login/sign-out", "/consent", "/device"}
    browser, csrf = signed_in(app)
    stranger = app.test_client()
    theirs = csrf_of(stranger)
    fields = {"username": "ann", "password": PASSWORD, "decision": "allow"}
    for path in found:
        for headers in FROM_ELSEWHERE:
            answer = browser.post(path, data=fields | {"csrf": csrf}, headers=headers)
            assert (answer.status_code, word(answer)) == (403, "csrf_failed"), (path, headers)
        for wrong in ({}, {"csrf": ""}, {"csrf": theirs}, {"csrf": csrf[:-1]}, {"csrf": csrf + "A"}):
            answer = browser.post(path, data=fields | wrong)
            assert (answer.status_code, word(answer)) == (403, "csrf_failed"), (path, wrong)
        # no cookie, as a form of another site has none
        answer = app.test_client().post(path, data=fields | {"csrf": csrf})
        assert (answer.status_code, word(answer)) == (403, "csrf_failed"), path
        assert "Set-Cookie" not in answer.headers, path
    assert is_signed_in(browser)
    assert not is_signed_in(stranger)
    # What the rows above spoil is good.
    own = {"Sec-Fetch-Site": "same-origin", "Origin": app.extensions["tokenserver"].settings.issuer}
    assert browser.post("/login/sign-out", data={"csrf": csrf}, headers=own).status_code == 200
    assert not is_signed_in(browser)


def test_signing_out_is_confirmed_on_our_own_page(app: Flask, api: Api):
    """OWASP ASVS 10.6.2."""
    api.register()
    browser, csrf = signed_in(app)
    for confirmed in ("", "x", csrf, "1", "true"):
        browser.post("/oauth/logout", data={"confirmed": confirmed})
        browser.get("/oauth/logout", query_string={"confirmed": confirmed})
    assert is_signed_in(browser)


def told(response: Any) -> str:
    return f"{response.headers}\n{response.text}"


def place_of(answer: Any) -> str:
    """But for what is random in a sign-in that begins."""
    return re.sub(
        r"\b(interaction|state|nonce|code_challenge)=[\w-]{43}(?=&|$)", r"\1=", answer.headers.get("Location", "")
    )


def test_nothing_is_made_from_the_host_header(app: Flask, api: Api):
    """Zitadel CVE-2026-29067: links, redirects, issuer and cookies come from the settings. Whatever host is asked,
    the answer is the same: which names lead here is the balancer's business."""
    token = api.signed_in()["access_token"]
    browser, _ = signed_in(app)
    for path, method in every_endpoint(app):
        if method != "GET":
            continue
        for client, headers in ((app.test_client(), bearer(token)), (browser, {})):
            usual = client.get(path, headers=headers)
            # A jar would keep its cookies from another host.
            cookies = {name: value for name, value in usual.request.headers if name == "Cookie"}
            for host in HOSTS:
                answer = app.test_client(use_cookies=False).get(
                    path, headers=headers | cookies | FORWARDED, environ_overrides={"HTTP_HOST": host}
                )
                expected = 401 if path == FOR_INSIDERS else usual.status_code
                assert answer.status_code == expected, (path, host)
                assert place_of(answer) == place_of(usual), (path, host)
                assert "evil.example" not in told(answer), (path, host)


def test_nobody_is_led_elsewhere(app: Flask, api: Api):
    """Flask-Security CVE-2023-49438, Rodauth CVE-2026-82467: not by a parameter of any name, on any page."""
    api.register()
    browser, csrf = signed_in(app)
    for path in (*forms(app), ASKED_BY_CLIENTS, CONFIRMED):
        for place in ELSEWHERE:
            sent = dict.fromkeys(NEXT, place)
            good = {"csrf": csrf, "username": "ann", "password": PASSWORD}
            for answer in (browser.get(path, query_string=sent), browser.post(path, data=sent | good)):
                where = answer.headers.get("Location", "/")
                # A path of ours, with whatever it was in the query, encoded.
                assert re.fullmatch(r"/(?![/\\])[\w/.-]*(\?[\w%&=.+:;~/-]*)?", where), (path, place, where)
                assert "evil.example" not in where.partition("?")[0]
                assert "Refresh" not in answer.headers
        if not is_signed_in(browser):
            browser, csrf = signed_in(app)


def test_a_trailing_or_a_doubled_slash_is_another_path(app: Flask):
    """No redirect that a router builds from the Host header."""
    client = app.test_client()
    for path, method in every_endpoint(app):
        for other in (f"{path}/", f"/{path}", path.replace("/", "//")):
            answer = client.open(
                "/", method=method, environ_overrides={"PATH_INFO": other, "HTTP_HOST": "evil.example"}
            )
            assert answer.status_code in {404, 405}, other
            assert "Location" not in answer.headers, other
