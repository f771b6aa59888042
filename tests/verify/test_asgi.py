"""RFC 6750 in front of a whole ASGI application (ASGI 3)."""

import asyncio
import json
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from tokenserver.verify import Claims, JWKSKeys, Verifier
from tokenserver.verify.asgi import ASGIVerifier, Message, Receive, Scope, Send

Mint = Callable[..., str]


class Application:
    """Remembers the scopes it was called with."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"served"})
        elif scope["type"] == "websocket":
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept"})

    @property
    def claims(self) -> Claims | None:
        claims: Claims | None = self.scopes[-1]["state"]["claims"]
        return claims


def call(middleware: ASGIVerifier, *authorization: str, **scope: Any) -> list[Message]:
    """What was sent for one request or one handshake."""
    sent: list[Message] = []
    kind = scope.setdefault("type", "http")
    received = iter(
        [{"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b""}]
    )

    async def receive() -> Message:
        return next(received)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"api.example"), *((b"authorization", value.encode("latin-1")) for value in authorization)]
    asyncio.run(middleware({"path": "/", "headers": headers, **scope}, receive, send))
    return sent


def headers_of(message: Message) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in message["headers"]}


@pytest.fixture
def application() -> Application:
    return Application()


class TestHTTP:
    def test_claims_reach_the_application(self, application: Application, verifier: Verifier, mint: Mint) -> None:
        sent = call(ASGIVerifier(application, verifier), f"Bearer {mint()}")
        assert sent[0]["status"] == 200
        assert application.claims
        assert application.claims.client_id == "web"

    def test_state_of_the_lifespan_is_kept_and_not_written_to(
        self, application: Application, verifier: Verifier, mint: Mint
    ) -> None:
        state = {"pool": 1}
        call(ASGIVerifier(application, verifier), f"Bearer {mint()}", state=state)
        assert application.scopes[-1]["state"]["pool"] == 1
        assert state == {"pool": 1}

    def test_without_credentials_rfc6750_3_1(self, application: Application, verifier: Verifier) -> None:
        start, body = call(ASGIVerifier(application, verifier))
        assert start["status"] == 401
        headers = headers_of(start)
        assert headers["www-authenticate"] == 'Bearer realm="https://api.example"'
        assert headers["cache-control"] == "no-store"
        assert headers["content-length"] == str(len(body["body"]))
        assert json.loads(body["body"]) == {}
        assert not application.scopes

    def test_invalid_token_rfc6750_3_1(self, application: Application, verifier: Verifier, mint: Mint) -> None:
        start, body = call(ASGIVerifier(application, verifier), f"Bearer {mint()[:-4]}")
        assert start["status"] == 401
        assert 'error="invalid_token"' in headers_of(start)["www-authenticate"]
        assert json.loads(body["body"])["error"] == "invalid_token"
        assert not application.scopes

    def test_scope_rfc6750_3_1(self, application: Application, verifier: Verifier, mint: Mint) -> None:
        sent = call(ASGIVerifier(application, verifier, scopes=["posts:create"]), f"Bearer {mint()}")
        assert sent[0]["status"] == 200
        sent = call(ASGIVerifier(application, verifier, scopes=["roles:read"]), f"Bearer {mint()}")
        assert sent[0]["status"] == 403
        assert 'scope="roles:read"' in headers_of(sent[0])["www-authenticate"]

    def test_two_authorization_headers_rfc6750_2(
        self, application: Application, verifier: Verifier, mint: Mint
    ) -> None:
        sent = call(ASGIVerifier(application, verifier), f"Bearer {mint()}", f"Bearer {mint()}")
        assert sent[0]["status"] == 400
        assert not application.scopes

    def test_header_name_in_any_case(self, application: Application, verifier: Verifier, mint: Mint) -> None:
        headers = [(b"Authorization", f"Bearer {mint()}".encode())]
        assert call(ASGIVerifier(application, verifier), headers=headers)[0]["status"] == 200

    def test_token_in_the_query_rfc9700_4_3_2(
        self, application: Application, verifier: Verifier, mint: Mint
    ) -> None:
        for authorization in ([], [f"Bearer {mint()}"]):
            sent = call(ASGIVerifier(application, verifier), *authorization, query_string=b"access%5Ftoken=x")
            assert sent[0]["status"] == 400

    def test_exempt_paths_are_exact(self, application: Application, verifier: Verifier) -> None:
        middleware = ASGIVerifier(application, verifier, exempt=["/healthz"])
        assert call(middleware, path="/healthz")[0]["status"] == 200
        assert application.claims is None
        for path in ("/", "/health", "/healthz/", "/healthzz", "/x/healthz"):
            assert call(middleware, path=path)[0]["status"] == 401

    def test_keys_unavailable_is_503(
        self, application: Application, make_verifier: Callable[..., Verifier], key_server: Any, mint: Mint
    ) -> None:
        key_server.pages.clear()
        verifier = make_verifier(keys=JWKSKeys(f"{key_server.url}/jwks"))
        sent = call(ASGIVerifier(application, verifier), f"Bearer {mint()}")
        assert sent[0]["status"] == 503
        assert int(headers_of(sent[0])["retry-after"]) > 0

    def test_the_event_loop_is_free_while_keys_are_fetched(
        self, application: Application, make_verifier: Callable[..., Verifier], key_server: Any, mint: Mint
    ) -> None:
        may_go_on = Event()
        key_server.before = lambda: may_go_on.wait(30)
        middleware = ASGIVerifier(application, make_verifier(keys=JWKSKeys(f"{key_server.url}/jwks")))

        async def receive() -> Message:
            return {"type": "http.request", "body": b""}

        async def send(_message: Message) -> None:
            pass

        async def both() -> None:
            scope = {"type": "http", "path": "/", "headers": [(b"authorization", f"Bearer {mint()}".encode())]}
            verifying = asyncio.ensure_future(middleware(scope, receive, send))
            await asyncio.sleep(0.1)
            assert not verifying.done()
            may_go_on.set()
            await verifying

        asyncio.run(both())
        assert application.claims


class TestWebSocket:
    def test_claims_reach_the_application(self, application: Application, verifier: Verifier, mint: Mint) -> None:
        sent = call(ASGIVerifier(application, verifier), f"Bearer {mint()}", type="websocket")
        assert sent == [{"type": "websocket.accept"}]
        assert application.claims

    @pytest.mark.parametrize("authorization", ["", "Bearer bad", "Bearer", "Basic x"])
    def test_closed_before_it_was_accepted(
        self, application: Application, verifier: Verifier, authorization: str
    ) -> None:
        sent = call(ASGIVerifier(application, verifier), authorization, type="websocket")
        assert sent == [{"type": "websocket.close", "code": 1008}]
        assert not application.scopes

    def test_keys_unavailable_asks_to_try_later(
        self, application: Application, make_verifier: Callable[..., Verifier], key_server: Any, mint: Mint
    ) -> None:
        key_server.pages.clear()
        verifier = make_verifier(keys=JWKSKeys(f"{key_server.url}/jwks"))
        sent = call(ASGIVerifier(application, verifier), f"Bearer {mint()}", type="websocket")
        assert sent == [{"type": "websocket.close", "code": 1013}]


def test_lifespan_passes_through(application: Application, verifier: Verifier) -> None:
    assert call(ASGIVerifier(application, verifier), type="lifespan") == []
    assert [scope["type"] for scope in application.scopes] == ["lifespan"]
    assert "state" not in application.scopes[0]


@pytest.mark.parametrize("scopes", ["posts:create", ["a b"]])
def test_scopes_that_can_not_be(application: Application, verifier: Verifier, scopes: Any) -> None:
    with pytest.raises(ValueError, match="scope tokens"):
        ASGIVerifier(application, verifier, scopes=scopes)
