"""Real keys, tokens that may be wrong in one chosen way, and a loopback server that counts who asks for keys."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from tokenserver.verify import StaticKeys, Verifier

ISSUER = "https://id.example"
AUDIENCE = "https://api.example"
NOW = 1_800_000_000

GOOD_CLAIMS = {
    "iss": ISSUER,
    "sub": "6f7c5e0e-30bb-4c0f-9d41-9c6f7d6f8a10",
    "aud": AUDIENCE,
    "exp": NOW + 300,
    "iat": NOW,
    "jti": "0197b1c2-4b2f-7d54-8a53-1f2e3d4c5b6a",
    "client_id": "web",
    "scope": "openid posts:create",
    "roles": ["user", "premium"],
    "sid": "s1",
    "auth_time": NOW - 10,
    "acr": "1",
    "amr": ["pwd"],
}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture(scope="session")
def private_keys() -> dict[str, Any]:
    """By kid. "rs" and "ps" are one key under two algorithms."""
    rsa = RSAKey.generate_key(2048)
    return {"rs": rsa, "ps": rsa, "es": ECKey.generate_key("P-256"), "ed": OKPKey.generate_key("Ed25519")}


@pytest.fixture(scope="session")
def jwks(private_keys: dict[str, Any]) -> list[dict[str, Any]]:
    algs = {"rs": "RS256", "ps": "PS256", "es": "ES256", "ed": "EdDSA"}
    return [
        {**key.as_dict(private=False), "kid": kid, "alg": algs[kid], "use": "sig"}
        for kid, key in private_keys.items()
    ]


@pytest.fixture(scope="session")
def mint(private_keys: dict[str, Any]) -> Callable[..., str]:
    """Makes a token. `...` as a value leaves the member out; bytes replace the whole header or payload.

    `sign_with` and `key` choose how it is really signed, whatever the header claims.
    """

    def mint(
        header: dict[str, Any] | bytes = {},  # noqa: B006 - only read
        claims: dict[str, Any] | bytes = {},  # noqa: B006 - only read
        *,
        kid: str = "rs",
        sign_with: str = "RS256",
        key: Any = None,
    ) -> str:
        if isinstance(header, dict):
            merged = {"alg": sign_with, "typ": "at+jwt", "kid": kid, **header}
            header = as_json({name: value for name, value in merged.items() if value is not ...})
        if isinstance(claims, dict):
            merged = {**GOOD_CLAIMS, **claims}
            claims = as_json({name: value for name, value in merged.items() if value is not ...})
        signing_input = f"{b64(header)}.{b64(claims)}"
        signature = JWSRegistry.algorithms[sign_with].sign(signing_input.encode(), key or private_keys[kid])
        return f"{signing_input}.{b64(signature)}"

    return mint


@pytest.fixture(scope="session")
def verifier(jwks: list[dict[str, Any]]) -> Verifier:
    return Verifier(issuer=ISSUER, audience=AUDIENCE, keys=StaticKeys(jwks), clock=lambda: NOW)


@pytest.fixture(scope="session")
def make_verifier(jwks: list[dict[str, Any]]) -> Callable[..., Verifier]:
    """A verifier like `verifier`, but for the arguments given."""

    def make(**changes: Any) -> Verifier:
        given = {"issuer": ISSUER, "audience": AUDIENCE, "keys": StaticKeys(jwks), "clock": lambda: NOW}
        return Verifier(**{**given, **changes})

    return make


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class KeyServer:
    """Answers `pages[path]` = (status, headers, body); `paths` lists what was asked for, `sent` with which header
    fields; `before` runs first."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.paths: list[str] = []
        self.sent: list[Message] = []
        self.before: Callable[[], object] = lambda: None
        self.drip = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.paths.append(self.path)
                outer.sent.append(self.headers)
                outer.before()
                status, headers, body = outer.pages.get(self.path, (404, {}, b""))
                if headers.get("ETag") and self.headers.get("If-None-Match") == headers["ETag"]:
                    status, body = 304, b""
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self._send(body)
                except OSError:
                    return  # the reader had enough

            def _send(self, body: bytes) -> None:
                step = 1 if outer.drip else 1 << 20
                for start in range(0, len(body), step):
                    time.sleep(outer.drip)
                    self.wfile.write(body[start : start + step])

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def fetches(self) -> int:
        return len(self.paths)

    def serve(self, keys: Any, path: str = "/jwks", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[path] = (200, named, as_json({"keys": keys}))

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def start_key_server() -> Iterator[Callable[[], KeyServer]]:
    started: list[KeyServer] = []

    def start() -> KeyServer:
        started.append(KeyServer())
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def key_server(start_key_server: Callable[[], KeyServer], jwks: list[dict[str, Any]]) -> KeyServer:
    server = start_key_server()
    server.serve(jwks)
    return server
