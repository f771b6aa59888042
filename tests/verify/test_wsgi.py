"""RFC 6750 in front of a whole WSGI application (PEP 3333)."""

from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment
from wsgiref.validate import validator

import pytest
from werkzeug.test import Client, TestResponse

from tokenserver.verify import JWKSKeys, Verifier
from tokenserver.verify.wsgi import WSGIVerifier

Mint = Callable[..., str]


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    claims = environ["tokenserver.claims"]
    body = (claims.sub if claims else "guest").encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


class ReadingClient(Client):
    """Reads and closes each answer, as PEP 3333 asks of a server."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        return super().open(*args, **{**kwargs, "buffered": True})


def client_of(verifier: Verifier, **options: Any) -> Client:
    # The validator stands on both sides: it raises where PEP 3333 is broken.
    return ReadingClient(validator(WSGIVerifier(validator(application), verifier, **options)))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_claims_reach_the_application(verifier: Verifier, mint: Mint) -> None:
    answer = client_of(verifier).get("/", headers=bearer(mint()))
    assert (answer.status_code, answer.text) == (200, "6f7c5e0e-30bb-4c0f-9d41-9c6f7d6f8a10")


def test_without_credentials_rfc6750_3_1(verifier: Verifier) -> None:
    answer = client_of(verifier).get("/")
    assert answer.status == "401 Unauthorized"
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="https://api.example"'
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json == {}


def test_invalid_token_rfc6750_3_1(verifier: Verifier, mint: Mint) -> None:
    answer = client_of(verifier).get("/", headers=bearer(mint()[:-4]))
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert answer.json
    assert answer.json["error"] == "invalid_token"


def test_scope_rfc6750_3_1(verifier: Verifier, mint: Mint) -> None:
    assert client_of(verifier, scopes=["posts:create"]).get("/", headers=bearer(mint())).status_code == 200
    answer = client_of(verifier, scopes=["posts:create", "roles:read"]).get("/", headers=bearer(mint()))
    assert answer.status_code == 403
    assert 'scope="posts:create roles:read"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("query", ["access_token=x", "a=1&access%5Ftoken=x"])
def test_token_in_the_query_rfc9700_4_3_2(verifier: Verifier, mint: Mint, query: str) -> None:
    for headers in ({}, bearer(mint())):
        assert client_of(verifier).get(f"/?{query}", headers=headers).status_code == 400


def test_exempt_paths_are_exact(verifier: Verifier, mint: Mint) -> None:
    client = client_of(verifier, exempt=["/healthz"])
    assert client.get("/healthz").text == "guest"
    assert client.get("/healthz", headers=bearer("bad")).text == "guest"
    for path in ("/", "/health", "/healthz/", "/healthzz", "/Healthz", "/x/healthz", "/healthz/../x"):
        assert client.get(path).status_code == 401
    assert client.get("/", headers=bearer(mint())).status_code == 200


def test_keys_unavailable_is_503(make_verifier: Callable[..., Verifier], key_server: Any, mint: Mint) -> None:
    key_server.pages.clear()
    verifier = make_verifier(keys=JWKSKeys(f"{key_server.url}/jwks"))
    answer = client_of(verifier).get("/", headers=bearer(mint()))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_a_client_can_not_set_the_claims(verifier: Verifier) -> None:
    assert client_of(verifier).get("/", headers={"tokenserver.claims": "me"}).status_code == 401


@pytest.mark.parametrize("scopes", ["posts:create", ["a b"]])
def test_scopes_that_can_not_be(verifier: Verifier, scopes: Any) -> None:
    with pytest.raises(ValueError, match="scope tokens"):
        WSGIVerifier(application, verifier, scopes=scopes)
