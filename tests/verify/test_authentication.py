"""RFC 9470: a resource that wants its users signed in otherwise, or lately, says so."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from flask import Flask
from werkzeug.test import Client

from tests.verify.conftest import NOW
from tokenserver.verify import Verifier
from tokenserver.verify.asgi import ASGIVerifier
from tokenserver.verify.authentication import Authentication
from tokenserver.verify.flask import Guard, requires
from tokenserver.verify.wsgi import WSGIVerifier

Mint = Callable[..., str]
# The doors: the status and the challenge of a request with this token.
Answer = tuple[int, str]
WANTED: dict[str, Any] = {"acr_values": ["2", "3"], "max_age": 60}
CHALLENGE = (
    'Bearer realm="https://api.example", error="insufficient_user_authentication",'
    ' error_description="The user must sign in again or in another way.", acr_values="2 3", max_age="60"'
)


def by_flask(verifier: Verifier, token: str, wanted: dict[str, Any]) -> Answer:
    app = Flask(__name__)
    Guard(verifier).init_app(app)
    app.add_url_rule("/", view_func=requires("posts:create", **wanted)(lambda: "served"))
    answer = app.test_client().get("/", headers={"Authorization": f"Bearer {token}"})
    return answer.status_code, answer.headers.get("WWW-Authenticate", "")


def by_wsgi(verifier: Verifier, token: str, wanted: dict[str, Any]) -> Answer:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b"served"]

    guarded = WSGIVerifier(application, verifier, ["posts:create"], **wanted)
    answer = Client(guarded).get("/", headers={"Authorization": f"Bearer {token}"})
    return answer.status_code, answer.headers.get("WWW-Authenticate", "")


def by_asgi(verifier: Verifier, token: str, wanted: dict[str, Any]) -> Answer:
    sent: list[Any] = []

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    guarded = ASGIVerifier(application, verifier, ["posts:create"], **wanted)
    headers = [(b"authorization", f"Bearer {token}".encode())]
    asyncio.run(guarded({"type": "http", "path": "/", "headers": headers}, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]).get(b"www-authenticate", b"").decode()


@pytest.mark.parametrize("ask", [by_flask, by_wsgi, by_asgi])
def test_challenge(verifier: Verifier, mint: Mint, ask: Callable[..., Answer]) -> None:
    """RFC 9470 section 3."""
    good = {"acr": "3", "auth_time": NOW - 10}
    assert ask(verifier, mint(claims=good), WANTED)[0] == 200
    for lacking in ({"acr": "1"}, {"acr": ...}, {"auth_time": NOW - 1000}, {"auth_time": ...}):
        assert ask(verifier, mint(claims=good | lacking), WANTED) == (401, CHALLENGE), lacking
    # Signing in again would not help who lacks the scope.
    assert ask(verifier, mint(claims={"acr": "1", "scope": "openid"}), WANTED)[0] == 403
    assert ask(verifier, mint(claims={"acr": ..., "auth_time": ...}), {})[0] == 200


def test_each_alone_and_the_leeway(verifier: Verifier, mint: Mint) -> None:
    assert by_wsgi(verifier, mint(claims={"acr": "1"}), {"acr_values": ["2"]})[1].endswith('way.", acr_values="2"')
    assert by_wsgi(verifier, mint(claims={"auth_time": NOW - 91}), {"max_age": 60})[1].endswith('max_age="60"')
    assert by_wsgi(verifier, mint(claims={"auth_time": NOW - 89}), {"max_age": 60})[0] == 200


@pytest.mark.parametrize(("acr_values", "max_age"), [("2", None), (["a b"], None), (['"'], None), ([], -1)])
def test_slips_show_when_the_service_starts(acr_values: Sequence[str], max_age: int | None) -> None:
    with pytest.raises(ValueError, match="must"):
        Authentication.of(acr_values, max_age)
