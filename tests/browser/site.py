"""A live server for walks in a browser, with a mail server and an application beside it."""

import re
import secrets
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx

from tests.browser.application import Application
from tests.live_server import ADMIN_PASSWORD, PASSWORD, LiveServer
from tests.smtp_server import Received, SmtpServer

ADMIN = "admin@localhost"
# RFC 7636 appendix B
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@dataclass
class Site:
    """`origin`: its issuer, which has a name: passkeys need one, and localhost is the one that needs no https."""

    server: LiveServer
    origin: str
    application: Application
    mail: SmtpServer

    def register(self, username: str, **profile: str) -> dict[str, Any]:
        """A user with this name, an address at example.org, and the password of the tests."""
        body = {"username": username, "email": f"{username}@example.org", "password": PASSWORD} | profile
        return self.server.post("/auth/register", 201, json=body)

    @staticmethod
    def new_name() -> str:
        return f"ann-{secrets.token_hex(3)}"

    def somebody(self, **profile: str) -> str:
        """The user name of somebody new."""
        username = self.new_name()
        self.register(username, **profile)
        return username

    def authorization_request(self, client_id: str, **more: str) -> str:
        """Where the application sends its user. The user is asked every time."""
        asked = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": self.application.redirect_uri,
            "scope": "openid profile email offline_access posts:create",
            "prompt": "consent",
            "state": "s",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        return f"/oauth/authorize?{urlencode(asked | more)}"

    def tokens(self, client_id: str, code: str) -> dict[str, Any]:
        """What the application gets for a code."""
        form = {
            "grant_type": "authorization_code",
            "client_id": client_id,
            "redirect_uri": self.application.redirect_uri,
            "code": code,
            "code_verifier": VERIFIER,
        }
        return self.server.post("/oauth/token", data=form)

    def token(self, login: str = ADMIN, password: str = ADMIN_PASSWORD) -> str:
        """An access token, by `/auth/login`."""
        body = {"login": login, "password": password}
        return str(self.server.post("/auth/login", json=body)["access_token"])

    def client(self, **metadata: Any) -> dict[str, Any]:
        """Registered by the admin: the application, in the words of RFC 7591, but for what `metadata` says."""
        origin = self.application.origin
        words = {
            "client_name": "Wattle Garden Notes",
            "redirect_uris": [self.application.redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "scope": "openid profile email offline_access posts:create",
            "logo_uri": f"{origin}/logo.svg",
            "client_uri": f"{origin}/",
            "policy_uri": f"{origin}/",
            "tos_uri": f"{origin}/",
        }
        headers = {"Authorization": f"Bearer {self.token()}"}
        return self.server.post("/clients", 201, json=words | metadata, headers=headers)

    def get(self, path: str, token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.get(self.server.url + path, headers=headers, timeout=30, trust_env=False)

    def letter(self, recipient: str, pattern: str) -> re.Match[str]:
        """Of the newest mail to somebody in which the pattern is; waits for it."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for mail in reversed(self._to(recipient)):
                found = re.search(pattern, mail.text)
                if found:
                    return found
            time.sleep(0.05)
        raise AssertionError(f"no mail to {recipient} says {pattern!r}")

    def _to(self, recipient: str) -> list[Received]:
        return [mail for mail in self.mail.received if recipient in mail.recipients]
