"""The guards of single endpoints of Starlette and FastAPI (RFC 6750)."""

from collections.abc import Callable
from typing import Annotated, Any

import httpx
import pytest
from anyio import run
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.verify.conftest import AUDIENCE
from tokenserver.verify import Claims, RevocationsUnavailable, Verifier
from tokenserver.verify.starlette import Guard

Mint = Callable[..., str]


def starlette(guard: Guard) -> Starlette:
    valid, may_create = guard.requires(), guard.requires("posts:create")
    careful, anybody = guard.requires(acr_values=["2"], max_age=60), guard.optional()

    def showing(claims_of: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> JSONResponse:
            claims = await claims_of(request)
            return JSONResponse({"sub": claims and claims.sub})

        return endpoint

    named = {"/me": valid, "/create": may_create, "/careful": careful, "/anybody": anybody}
    routes = [Route(path, showing(claims_of), methods=["GET", "POST"]) for path, claims_of in named.items()]
    app = Starlette(routes=routes)
    guard.init_app(app)
    return app


def fastapi(guard: Guard) -> FastAPI:
    app = FastAPI()
    guard.init_app(app)

    @app.api_route("/me", methods=["GET", "POST"])
    async def me(claims: Annotated[Claims, Depends(guard.requires())]) -> dict[str, str]:
        return {"sub": claims.sub}

    @app.api_route("/create", methods=["GET", "POST"])
    def create(claims: Annotated[Claims, Depends(guard.requires("posts:create"))]) -> dict[str, str]:
        return {"sub": claims.sub}

    @app.get("/careful")
    def careful(claims: Annotated[Claims, Depends(guard.requires(acr_values=["2"], max_age=60))]) -> dict[str, str]:
        return {"sub": claims.sub}

    @app.get("/anybody")
    def anybody(claims: Annotated[Claims | None, Depends(guard.optional())]) -> dict[str, str | None]:
        return {"sub": claims.sub if claims else None}

    return app


@pytest.fixture(params=[starlette, fastapi], ids=["starlette", "fastapi"])
def make(request: pytest.FixtureRequest) -> Callable[[Guard], Any]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def app(make: Callable[[Guard], Any], verifier: Verifier) -> Any:
    return make(Guard(verifier))


def call(app: Any, method: str, path: str, *tokens: str) -> httpx.Response:
    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api.example") as client:
            headers = [("Authorization", f"Bearer {token}") for token in tokens]
            return await client.request(method, path, headers=headers)

    return run(request)


def test_claims_reach_the_endpoint(app: Any, mint: Mint) -> None:
    response = call(app, "GET", "/me", mint())
    assert response.status_code == 200
    assert response.json()["sub"].startswith("6f7c5e0e")


def test_without_credentials_rfc6750_3_1(app: Any) -> None:
    response = call(app, "GET", "/me")
    assert (response.status_code, response.json()) == (401, {})
    assert response.headers["WWW-Authenticate"] == f'Bearer realm="{AUDIENCE}"'


def test_a_bad_token(app: Any, mint: Mint) -> None:
    for path in ("/me", "/anybody"):
        response = call(app, "GET", path, mint(claims={"exp": 1}))
        assert (response.status_code, response.json()["error"]) == (401, "invalid_token")
        assert response.headers["Cache-Control"] == "no-store"


def test_scope_covers_or_403(app: Any, mint: Mint) -> None:
    assert call(app, "POST", "/create", mint()).status_code == 200
    response = call(app, "POST", "/create", mint(claims={"scope": "openid"}))
    assert (response.status_code, response.json()["error"]) == (403, "insufficient_scope")
    assert 'scope="posts:create"' in response.headers["WWW-Authenticate"]


def test_step_up_rfc9470(app: Any, mint: Mint) -> None:
    response = call(app, "GET", "/careful", mint())
    assert (response.status_code, response.json()["error"]) == (401, "insufficient_user_authentication")
    assert call(app, "GET", "/careful", mint(claims={"acr": "2"})).status_code == 200


def test_token_elsewhere(app: Any, mint: Mint) -> None:
    assert call(app, "GET", f"/me?access_token={mint()}", mint()).status_code == 400
    assert call(app, "GET", "/me", mint(), mint()).status_code == 400


def test_guests_pass_where_they_may(app: Any, mint: Mint) -> None:
    assert call(app, "GET", "/anybody").json() == {"sub": None}
    assert call(app, "GET", "/anybody", mint()).json()["sub"]


def test_what_cannot_be_known_is_503(
    make: Callable[[Guard], Any], make_verifier: Callable[..., Verifier], mint: Mint
) -> None:
    def check(claims: Any) -> None:
        raise RevocationsUnavailable

    response = call(make(Guard(make_verifier(check=check))), "GET", "/me", mint())
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")


def test_a_scope_that_can_not_be_is_found_at_the_start(verifier: Verifier) -> None:
    with pytest.raises(ValueError):
        Guard(verifier).requires("posts create")
