import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import PASSWORD
from tokenserver.app import rooms_of
from tokenserver.oauth.interaction import Interaction
from tokenserver.web.cookies import new_cookie

# No other, and none inline.
SCRIPT = re.compile(r'<script src="/pages/passkeys\.js\?v=\w+" defer>')


class Elements(HTMLParser):
    """Attributes and text of each element that has an id; and all form fields by name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: dict[str, dict[str, str | None]] = {}
        self.texts: dict[str, str] = {}
        self.fields: dict[str, str] = {}
        self._open: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get("id")
        if name is not None:
            assert name not in self.ids, f"two elements with the id {name}"
            self.ids[name] = given | {"tag": tag}
        if tag == "input":
            self.fields[str(given["name"])] = given.get("value") or ""
        elif tag not in {"img", "link", "meta"}:
            self._open.append((tag, name))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for _, name in self._open:
            if name is not None:
                self.texts[name] = self.texts.get(name, "") + data


@dataclass
class Browser:
    """Keeps cookies, opens pages, sends their forms."""

    http: FlaskClient
    app: Flask

    @property
    def cookie(self) -> str:
        found = self.http.get_cookie(rooms_of(self.app).cookies.browser_name)
        if found is None:
            value = new_cookie()
            self.http.set_cookie(rooms_of(self.app).cookies.browser_name, value)
            return value
        return found.value

    @property
    def session(self) -> str | None:
        found = self.http.get_cookie(rooms_of(self.app).cookies.session_name)
        return found.value if found else None

    def begin(self, client_id: str | None = "app", **data: Any) -> Interaction:
        """As the authorization endpoint would."""
        known = {"redirect_uri": "https://app.example/cb", "scope": "openid"}
        return rooms_of(self.app).interactions.begin(
            self.cookie, resume="/oauth/authorize/resume?i={id}", client_id=client_id, data=known | data
        )

    def send(self, page: TestResponse, headers: Mapping[str, str] | None = None, **fields: str) -> TestResponse:
        """The form of a page, with the user's fields; to where the page was."""
        path = page.request.path
        return self.http.post(path, data=Elements(page.text).fields | fields, headers=headers or {})

    def sign_in(self, interaction: Interaction | None = None, username: str = "ann") -> TestResponse:
        query = f"?interaction={interaction.id}" if interaction else ""
        return self.send(self.http.get(f"/login{query}"), username=username, password=PASSWORD)


@pytest.fixture
def backend() -> str:
    return "postgresql"  # the pages keep nothing of their own in SQL


@pytest.fixture
def browser_of() -> Callable[[Flask], Browser]:
    def made(app: Flask) -> Browser:
        rooms = rooms_of(app)
        if rooms.clients.find("app") is None:
            rooms.clients.create(
                client_id="app",
                client_name="An <app>",
                redirect_uris=["https://app.example/cb"],
                grant_types=["authorization_code"],
                response_types=["code"],
                scope=["openid", "posts:create"],
                client_uri="https://app.example",
                logo_uri="https://cdn.example:8443/logo.png?a=1",
                policy_uri="https://app.example/policy",
                tos_uri="https://app.example/terms",
            )
        return Browser(app.test_client(), app)

    return made


@pytest.fixture
def browser(browser_of: Callable[[Flask], Browser], app: Flask, api: Any) -> Browser:
    """Of a server that has the user "ann" and the client "app"."""
    api.register()
    return browser_of(app)


def policy_of(response: TestResponse) -> dict[str, str]:
    return dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))


def shown(response: TestResponse, status: int = 200) -> Elements:
    """Asserts a page of this status, as every page must be; its elements."""
    assert response.status_code == status, response.text
    assert response.mimetype == "text/html"
    # GHSA-68rp-wp8r-4726; RFC 9700 sections 4.2.4 and 4.16; CSP level 3
    assert "Cookie" in response.headers["Vary"]
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["X-Frame-Options"] == "DENY"
    policy = policy_of(response)
    scripts = re.findall("<script[^>]*>", response.text)
    assert all(SCRIPT.fullmatch(each) for each in scripts), scripts
    assert policy["script-src"] == ("'self'" if scripts else "'none'")
    for name in ("default-src", "frame-ancestors", "base-uri"):
        assert policy[name] == "'none'", policy
    assert policy["style-src"] == "'self'"
    assert not [word for word in ("<style", " style=", "javascript:") if word in response.text]
    return Elements(response.text)


def refused(response: TestResponse, status: int, code: str) -> Elements:
    """Asserts an error page of this status and code."""
    elements = shown(response, status)
    assert elements.texts["error-code"] == code
    assert elements.texts["request-id"] == response.headers["X-Request-ID"]
    return elements
