"""Browsers that are signed in, and clients that send them to the authorization endpoint."""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import PASSWORD, Api
from tokenserver.app import rooms_of
from tokenserver.identity.login import Proof
from tokenserver.rooms import Rooms
from tokenserver.web.cookies import Cookies

CALLBACK = "https://app.example/cb"
VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


@dataclass
class Site:
    """A client. `secret` None: a public one."""

    client_id: str
    secret: str | None
    redirect_uri: str = CALLBACK

    @property
    def form(self) -> dict[str, str]:
        return {"client_id": self.client_id} | ({"client_secret": self.secret} if self.secret else {})


@dataclass
class Browser:
    """`http` keeps the cookies. What is asked for is a code by PKCE unless a test says otherwise."""

    http: FlaskClient
    rooms: Rooms
    asked: dict[str, str] = field(default_factory=dict)

    def sign_in(self, login: str = "ann", password: str = PASSWORD) -> None:
        proof = self.rooms.login.authenticate(login, password)
        assert isinstance(proof, Proof)
        cookies = Cookies(self.rooms.settings.issuer)
        found = self.http.get_cookie(cookies.session_name)
        cookie, _ = self.rooms.browser_sessions.sign_in(proof, found.value if found else None)
        self.http.set_cookie(cookies.session_name, cookie)

    def authorize(self, site: Site, method: str = "GET", **parameters: str | None) -> Any:
        """`parameters`: None leaves one out that would be there."""
        usual: dict[str, str | None] = {
            "client_id": site.client_id,
            "redirect_uri": site.redirect_uri,
            "response_type": "code",
            "scope": "openid posts:create",
            "state": "the state",
            "nonce": "the nonce",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        sent = {name: value for name, value in (usual | parameters).items() if value is not None}
        place = {"query_string": sent} if method == "GET" else {"data": sent}
        return self.http.open("/oauth/authorize", method=method, **place)

    def code(self, site: Site, **parameters: str | None) -> str:
        return answer(self.authorize(site, **parameters))["code"]

    def redeem(self, site: Site, code: str, **parameters: str | None) -> Any:
        usual: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": site.redirect_uri,
            "code_verifier": VERIFIER,
            **site.form,
        }
        return self.http.post("/oauth/token", data={k: v for k, v in (usual | parameters).items() if v is not None})


def answer(response: Any, place: str = "query") -> dict[str, str]:
    """The parameters that a redirect carries, each once; nothing is where it doesn't belong."""
    assert response.status_code == 303, response.text
    parts = urlsplit(response.headers["Location"])
    found = {part: parse_qs(getattr(parts, part), keep_blank_values=True) for part in ("query", "fragment")}
    assert not found.pop("fragment" if place == "query" else "query")
    assert all(len(values) == 1 for values in found[place].values())
    return {name: values[0] for name, values in found[place].items()}


def claims_of(token: str) -> dict[str, Any]:
    """Not verified: the key ring's tests do that."""
    return dict(json.loads(urlsafe_b64decode(token.split(".")[1] + "==")))


@pytest.fixture
def browser(app: Flask, api: Api) -> Browser:
    """Ann's, signed in."""
    api.register()
    found = Browser(app.test_client(), rooms_of(app))
    found.sign_in()
    return found


@pytest.fixture
def site_of(rooms: Rooms) -> Callable[..., Site]:
    """Makes clients: first-party ones, which need no consent, unless a test says otherwise."""

    def make(client_id: str = "app", **metadata: Any) -> Site:
        defaults: dict[str, Any] = {
            "client_name": client_id,
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "redirect_uris": [CALLBACK],
            "scope": ["openid", "profile", "email", "offline_access", "posts:create"],
            "token_endpoint_auth_method": "client_secret_post",
            "first_party": True,
        }
        row, secret = rooms.clients.create(client_id=client_id, **(defaults | metadata))
        return Site(row.client_id, secret, (defaults | metadata)["redirect_uris"][0])

    return make


@pytest.fixture
def site(site_of: Callable[..., Site]) -> Site:
    return site_of()
