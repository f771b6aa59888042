"""Each service of docs/examples, started as its first line says, follows a live server's tokens and revocations."""

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from tests.docs.fences import ROOT, marked
from tests.docs.pasting import PRINTED_ADDRESS
from tests.live_server import LiveServer, serving
from tests.ports import free_port
from tokenserver.tokens.access_token import mint
from tokenserver.tokens.key_ring import KeyRing
from tokenserver.verify import Introspection, RevocationsUnavailable, TokenError

EXAMPLES = ROOT / "docs" / "examples"
VERIFIER = ROOT / "docs" / "verifier.md"
SERVICES = sorted(path.stem for path in EXAMPLES.glob("*_service.py"))
PROGRAMS = Path(sys.executable).parent
SECONDS = 60


def command_of(service: str, port: int) -> list[str]:
    """That of the first line of the example, with a port."""
    first = (EXAMPLES / f"{service}.py").read_text(encoding="utf-8").splitlines()[0]
    words = first.rstrip('".').partition("AUDIENCE=… ")[2].split()
    return [str(PROGRAMS / words[0]), *words[1:], "--port", str(port)]


@contextmanager
def running(service: str, issuer: LiveServer, **options: str) -> Iterator[str]:
    """Its URL."""
    port = free_port()
    named = {"ISSUER": issuer.url, "AUDIENCE": issuer.url, "PYTHONDONTWRITEBYTECODE": "1", **options}
    process = subprocess.Popen(
        command_of(service, port),
        cwd=EXAMPLES,
        env={**os.environ, **named},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def call(method: str, url: str, token: str | None = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.request(method, url, headers=headers, timeout=30, trust_env=False)


def answers(url: str, token: str | None, status: int) -> httpx.Response:
    """Asks until it answers with this status."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            response = call("GET", url, token)
            if response.status_code == status:
                return response
            found = response.text
        except httpx.TransportError as error:
            found = str(error)
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


@pytest.fixture(scope="module")
def issuer() -> Iterator[LiveServer]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def urls(issuer: LiveServer) -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        started = {service: stack.enter_context(running(service, issuer)) for service in SERVICES}
        for url in started.values():
            answers(f"{url}/me", None, 401)
        yield started


@pytest.fixture(scope="module")
def token(issuer: LiveServer) -> str:
    return str(issuer.signed_in("reader")["access_token"])


@pytest.fixture(scope="module")
def revoked(issuer: LiveServer, urls: dict[str, str]) -> str:
    """It was good everywhere, until its session ended."""
    found = str(issuer.signed_in("leaver")["access_token"])
    for url in urls.values():
        assert call("GET", f"{url}/me", found).status_code == 200
    headers = {"Authorization": f"Bearer {found}"}
    assert httpx.post(f"{issuer.url}/auth/logout", headers=headers, trust_env=False).status_code == 204
    return found


def minted(server: LiveServer, **changes: object) -> str:
    """By the issuer's own key."""
    keys = KeyRing(server.folder / "keys", jwks_max_age=300, token_lifetime=300)
    given = {
        "issuer": server.url,
        "subject": str(uuid.uuid4()),
        "audience": [server.url],
        "client_id": "first-party",
        "scope": "posts:create",
        "lifetime": 300,
    }
    return mint(keys.signer("RS256"), **{**given, **changes}).token


@pytest.mark.parametrize("service", SERVICES)
class TestEachService:
    @pytest.fixture
    def url(self, urls: dict[str, str], service: str) -> str:
        return urls[service]

    def test_a_good_token(self, url: str, issuer: LiveServer, token: str) -> None:
        response = call("GET", f"{url}/me", token)
        assert (response.status_code, response.json()) == (200, {"sub": issuer.me(token)["id"]})
        response = call("POST", f"{url}/posts", token)
        assert (response.status_code, response.json()) == (201, {"author": issuer.me(token)["id"]})
        assert call("POST", f"{url}/posts", minted(issuer)).status_code == 201

    def test_no_token(self, url: str, issuer: LiveServer) -> None:
        response = call("POST", f"{url}/posts")
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == f'Bearer realm="{issuer.url}"'

    @pytest.mark.parametrize(
        "changes",
        [{"lifetime": -60}, {"audience": ["https://other.example"]}, {"issuer": "https://other.example"}],
        ids=str,
    )
    def test_expired_or_for_others(self, url: str, issuer: LiveServer, changes: dict[str, object]) -> None:
        response = call("POST", f"{url}/posts", minted(issuer, **changes))
        assert (response.status_code, response.json()["error"]) == (401, "invalid_token")

    def test_a_narrow_scope(self, url: str, issuer: LiveServer) -> None:
        response = call("POST", f"{url}/posts", minted(issuer, scope="openid"))
        assert (response.status_code, response.json()["error"]) == (403, "insufficient_scope")
        assert 'scope="posts:create"' in response.headers["WWW-Authenticate"]

    def test_a_revoked_token(self, url: str, token: str, revoked: str) -> None:
        response = answers(f"{url}/me", revoked, 401)
        assert response.json()["error"] == "invalid_token"
        assert call("GET", f"{url}/me", token).status_code == 200


class TestDocument:
    """The blocks of docs/verifier.md, as they are."""

    @pytest.fixture
    def names(self, request: pytest.FixtureRequest, issuer: LiveServer) -> Iterator[dict[str, Any]]:
        """What the block of the test's name makes."""
        mark = request.node.originalname.rpartition("_")[2]
        found: dict[str, Any] = {"__name__": "document"}
        exec(marked(VERIFIER, f"run: {mark}").replace(PRINTED_ADDRESS, issuer.url), found)
        yield found
        if found["verifier"].revocations:
            found["verifier"].revocations.close()

    @staticmethod
    def statuses(ask: Callable[[dict[str, str]], int], *tokens: str | None) -> list[int]:
        return [ask({"Authorization": f"Bearer {token}"} if token else {}) for token in tokens]

    def test_flask(self, names: dict[str, Any], issuer: LiveServer, token: str, revoked: str) -> None:
        client = names["app"].test_client()
        tokens = (token, minted(issuer, scope="openid"), revoked, None)
        found = self.statuses(lambda headers: client.post("/posts", headers=headers).status_code, *tokens)
        assert found == [201, 403, 401, 401]

    def test_fastapi(self, names: dict[str, Any], issuer: LiveServer, token: str, revoked: str) -> None:
        tokens = (token, minted(issuer, scope="openid"), revoked, None)
        found = self.statuses(lambda headers: ask_asgi(names["app"], "POST", "/posts", headers), *tokens)
        assert found == [201, 403, 401, 401]

    def test_asgi(self, names: dict[str, Any], issuer: LiveServer, token: str, revoked: str) -> None:
        tokens = (token, minted(issuer, scope="openid"), revoked, None)
        found = self.statuses(lambda headers: ask_asgi(names["app"], "GET", "/", headers), *tokens)
        assert found == [200, 403, 401, 401]

    def test_wsgi(self, names: dict[str, Any], issuer: LiveServer, token: str, revoked: str) -> None:
        with httpx.Client(transport=httpx.WSGITransport(names["app"]), base_url="http://api.example") as client:
            tokens = (token, minted(issuer, scope="openid"), revoked, None)
            found = self.statuses(lambda headers: client.get("/", headers=headers).status_code, *tokens)
        assert found == [200, 403, 401, 401]

    def test_prometheus(self, names: dict[str, Any], issuer: LiveServer, token: str) -> None:
        verifier, enforced = names["verifier"], names["enforced"]
        try:
            verifier.verify(token)
            assert REGISTRY.get_sample_value("revocation_list_age_seconds") < 120
            leaving = str(issuer.signed_in("prometheus")["access_token"])
            headers = {"Authorization": f"Bearer {leaving}"}
            assert httpx.post(f"{issuer.url}/auth/logout", headers=headers, trust_env=False).status_code == 204
            deadline = time.monotonic() + SECONDS
            # Its session and its refresh family.
            while REGISTRY.get_sample_value("revocation_enforced_seconds_count") < 2:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            with pytest.raises(TokenError):
                verifier.verify(leaving)
        finally:
            REGISTRY.unregister(enforced)
            REGISTRY.unregister(names["staleness"])

    def test_testing(self, names: dict[str, Any]) -> None:
        verifier = names["verifier"]
        verifier.verify(names["good"]).require("posts:create")
        with pytest.raises(TokenError):
            verifier.verify(names["narrow"]).require("posts:create")
        with pytest.raises(TokenError):
            verifier.verify(names["expired"])


def ask_asgi(app: Any, method: str, path: str, headers: dict[str, str]) -> int:
    async def ask() -> int:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api.example") as client:
            return (await client.request(method, path, headers=headers)).status_code

    return asyncio.run(ask())


def test_introspection_knows_what_was_revoked(issuer: LiveServer, token: str, revoked: str) -> None:
    """RFC 7662: what a service asks when its list grew old."""
    client = issuer.create_client("a.service", "client_credentials", scope="tokens:introspect")
    introspect = Introspection(f"{issuer.url}/oauth/introspect", *client)
    assert introspect(token)
    assert not introspect(revoked)
    assert not introspect("nonsense")
    with pytest.raises(RevocationsUnavailable):
        Introspection(f"{issuer.url}/oauth/introspect", client[0], "wrong")(token)
    with pytest.raises(ValueError):
        Introspection("http://id.example/oauth/introspect", *client)


def test_a_server_that_is_away(issuer: LiveServer, urls: dict[str, str], revoked: str) -> None:
    """What a service knows stays so until it is too old; then it refuses everything. The last test: it kills."""
    token = str(issuer.signed_in("stayer")["access_token"])
    answers(f"{urls['flask_service']}/me", revoked, 401)
    with running("flask_service", issuer, MAX_STALENESS="15", INTERVAL="1") as strict:
        answers(f"{strict}/me", token, 200)
        issuer.kill()
        response = answers(f"{strict}/me", token, 503)
        assert response.headers["Retry-After"] == "5"
        assert call("GET", f"{strict}/me", revoked).status_code == 503
    assert call("GET", f"{urls['flask_service']}/me", token).status_code == 200
    assert call("GET", f"{urls['flask_service']}/me", revoked).status_code == 401
