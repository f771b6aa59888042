"""Headers that every answer carries (OWASP ASVS 5.0 section 3.4), whatever is asked and however it ends."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from tests.conftest import PASSWORD, Api, Apps, bearer
from tests.hostile.every_endpoint import every_endpoint

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

# The page that anybody may embed, by design (OIDC Session Management section 3.1).
EMBEDDED = "/oauth/check_session"
# Answers that are the same for everybody, and say nothing about anybody.
PUBLIC = re.compile(r"/\.well-known/|/openapi\.json$|/docs/|/pages/|/oauth/(check_session|revocation_list)$")
FILES = (
    "/pages/pages.css",
    "/pages/icon.svg",
    "/docs/init.js",
    "/docs/swagger-ui-bundle.js",
    "/docs/swagger-ui.css",
)
LISTS = {"Set-Cookie", "Vary", "WWW-Authenticate"}
NOWHERE = ("/nothing", "/oauth/nothing", "/login/nothing", "/auth//login", "/%00")


def answers(app: Flask, token: str) -> Iterator[tuple[str, Any]]:
    """Of every endpoint to guests and users, by its methods and by others, of files, and of what isn't there."""
    client = app.test_client()
    found = list(every_endpoint(app))
    for path, method in found:
        for headers in ({}, bearer(token)):
            if path == "/auth/logout" and headers:
                continue  # it would end what the others are asked with
            yield path, client.open(path, method=method, headers=headers)
    for path in {*(path for path, _ in found), *NOWHERE}:
        yield path, client.open(path, method="PROPFIND")
        yield path, client.options(path)
    for path in (*FILES, *NOWHERE):
        yield path, client.get(path)
    yield "/auth/login", client.post("/auth/login", data=b"x" * 100_000, content_type="application/json")


def test_every_answer_is_framed_sniffed_scripted_and_kept_by_nobody(app: Flask, api: Api):
    statuses = set()
    for path, response in answers(app, api.signed_in()["access_token"]):
        headers, what = response.headers, (path, response.request.method, response.status)
        statuses.add(response.status_code)
        assert headers["X-Content-Type-Options"] == "nosniff", what
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        # object-src falls back to default-src; base-uri, form-action and frame-ancestors don't.
        assert (policy["default-src"], policy["base-uri"]) == ("'none'", "'none'"), what
        assert "unsafe" not in str(policy), what
        assert set(policy) >= {"form-action", "frame-ancestors"}, what
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin", what
        assert headers["Referrer-Policy"] == "no-referrer", what
        # The HTTP server writes it (RFC 9110 section 6.6.1); two would be one too many, as of most (section 5.3).
        assert "Date" not in headers, what
        names = [name.lower() for name, _ in headers if name not in LISTS]
        assert len(names) == len(set(names)), what
        # RFC 6797 section 7.2: not over plain http
        assert "Strict-Transport-Security" not in headers, what
        assert "Server" not in headers, what
        is_embedded = (path, response.request.method, response.status_code) == (EMBEDDED, "GET", 200)
        assert (policy["frame-ancestors"] == "'none'", headers.get("X-Frame-Options") == "DENY") == (
            (False, False) if is_embedded else (True, True)
        ), what
        embedding = headers["Cross-Origin-Resource-Policy"]
        assert embedding == "same-origin" or PUBLIC.search(path), what
        if "no-store" not in headers["Cache-Control"]:
            assert PUBLIC.search(path), what
            assert "Set-Cookie" not in headers, what
            assert response.status_code in {200, 204, 304, 404, 405}, what
        if "Set-Cookie" in headers:
            assert "Cookie" in headers.get("Vary", ""), what
    assert statuses >= {200, 400, 401, 403, 404, 405, 413, 415}


def test_what_a_token_or_a_cookie_brings_is_not_stored(app: Flask, api: Api):
    """OWASP ASVS 14.3.2; Flask GHSA-68rp-wp8r-4726: pages differ by cookie."""
    token = api.signed_in()["access_token"]
    for response in (
        api.me(token),
        api.me("nonsense"),
        api.http.get("/users/me/sessions"),
        api.http.post("/auth/login", json={"login": "ann", "password": PASSWORD}),
    ):
        assert response.headers["Cache-Control"] == "no-store"
    browser = app.test_client()
    asked = browser.get("/login")
    csrf = re.findall(r'name="csrf" value="([^"]+)"', asked.text)[0]
    signed_in = browser.post("/login", data={"csrf": csrf, "username": "ann", "password": PASSWORD})
    assert signed_in.status_code == 303
    for response in (asked, signed_in, browser.get("/login")):
        assert response.headers["Cache-Control"] == "no-store"
        assert "Cookie" in response.headers["Vary"]


def test_https_is_demanded_for_a_year_where_the_issuer_has_it(apps: Apps):
    app = apps(issuer="https://id.example")
    for path, response in answers(app, "none"):
        value = response.headers["Strict-Transport-Security"]
        assert int(value.partition("max-age=")[2].partition(";")[0]) >= 31_536_000, path
