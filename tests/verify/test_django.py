"""The guards of Django views, as a resource server uses them (RFC 6750), under WSGI and ASGI."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import django
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from tests.verify.conftest import AUDIENCE
from tokenserver.verify import RevocationsUnavailable, Verifier
from tokenserver.verify.django import optional, requires

Mint = Callable[..., str]


def told(request: HttpRequest) -> JsonResponse:
    claims = request.claims
    return JsonResponse({"sub": claims and claims.sub})


@requires()
def me(request: HttpRequest) -> JsonResponse:
    return told(request)


@requires("posts:create")
def create(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"by": request.claims.sub, "got": request.body.decode()}, status=201)


@requires("posts:create")
async def create_later(request: HttpRequest) -> JsonResponse:
    await asyncio.sleep(0)
    return told(request)


@requires("posts:create", acr_values=["2"], max_age=60)
def careful(request: HttpRequest) -> JsonResponse:
    return told(request)


@requires()
def wants_more(request: HttpRequest) -> JsonResponse:
    request.claims.require("posts:delete:any")
    return told(request)


@optional()
def anybody(request: HttpRequest) -> JsonResponse:
    return told(request)


@optional()
async def anybody_later(request: HttpRequest) -> JsonResponse:
    return told(request)


def unguarded(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"claims": hasattr(request, "claims") and request.claims is not None})


class Urls:
    urlpatterns: ClassVar = [
        path(view.__name__, view)
        for view in (me, create, create_later, careful, wants_more, anybody, anybody_later, unguarded)
    ]


CSRF = "django.middleware.csrf.CsrfViewMiddleware"
GUARD = "tokenserver.verify.django.TokenMiddleware"
if not settings.configured:
    settings.configure(
        ROOT_URLCONF=Urls, ALLOWED_HOSTS=["testserver"], SECRET_KEY="of the tests", MIDDLEWARE=[CSRF]
    )
    django.setup()


@pytest.fixture
def good(mint: Mint) -> dict[str, str]:
    return {"Authorization": f"Bearer {mint()}"}


@pytest.fixture(autouse=True)
def project(verifier: Verifier) -> Iterator[None]:
    with override_settings(TOKENSERVER_VERIFIER=verifier):
        yield


@pytest.fixture
def client() -> Client:
    return Client(enforce_csrf_checks=True)


def asynchronously(method: str, url: str, **options: Any) -> Any:
    return asyncio.run(getattr(AsyncClient(enforce_csrf_checks=True), method)(url, **options))


def test_claims_reach_the_view(client: Client, good: dict[str, str]) -> None:
    response = client.get("/me", headers=good)
    assert response.status_code == 200
    assert response.json()["sub"].startswith("6f7c5e0e")


def test_without_credentials_rfc6750_3_1(client: Client) -> None:
    for path_of in ("/me", "/create", "/create_later"):
        response = client.post(path_of)
        assert (response.status_code, response.json()) == (401, {})
        assert response.headers["WWW-Authenticate"] == f'Bearer realm="{AUDIENCE}"'
        assert response.headers["Cache-Control"] == "no-store"


def test_a_bad_token(client: Client, mint: Mint) -> None:
    for url in ("/me", "/anybody"):
        response = client.get(url, headers={"Authorization": f"Bearer {mint(claims={'exp': 1})}"})
        assert (response.status_code, response.json()["error"]) == (401, "invalid_token")


def test_scope_covers_or_403(client: Client, mint: Mint, good: dict[str, str]) -> None:
    assert client.post("/create", headers=good).status_code == 201
    response = client.post("/create", headers={"Authorization": f"Bearer {mint(claims={'scope': 'openid'})}"})
    assert (response.status_code, response.json()["error"]) == (403, "insufficient_scope")
    assert 'scope="posts:create"' in response.headers["WWW-Authenticate"]


def test_a_refusal_of_the_view_itself(client: Client, good: dict[str, str]) -> None:
    response = client.get("/wants_more", headers=good)
    assert (response.status_code, response.json()["error"]) == (403, "insufficient_scope")


def test_step_up_rfc9470(client: Client, good: dict[str, str], mint: Mint) -> None:
    response = client.get("/careful", headers=good)
    assert (response.status_code, response.json()["error"]) == (401, "insufficient_user_authentication")
    assert 'acr_values="2", max_age="60"' in response.headers["WWW-Authenticate"]
    strong = {"Authorization": f"Bearer {mint(claims={'acr': '2'})}"}
    assert client.get("/careful", headers=strong).status_code == 200


def test_token_elsewhere(client: Client, mint: Mint, good: dict[str, str]) -> None:
    """RFC 6750 section 2: in the header, and nowhere else beside it."""
    assert client.get(f"/me?access_token={mint()}", headers=good).status_code == 400
    assert client.post("/create", {"access_token": mint()}, headers=good).status_code == 201  # multipart
    form = {"data": f"access_token={mint()}", "content_type": "application/x-www-form-urlencoded"}
    assert client.post("/create", **form, headers=good).status_code == 400


def test_bodies_are_left_to_the_view(client: Client, good: dict[str, str]) -> None:
    response = client.post("/create", data={"a": 1}, content_type="application/json", headers=good)
    assert response.json()["got"] == '{"a": 1}'


def test_no_forgery_token_is_needed_where_a_token_is(client: Client, good: dict[str, str]) -> None:
    """No browser sends an access token by itself. Where guests may come, a cookie might let them do it."""
    assert client.post("/create", headers=good).status_code == 201
    assert client.post("/anybody", headers=good).status_code == 403


def test_guests_pass_where_they_may(client: Client, good: dict[str, str]) -> None:
    for headers, known in (({}, False), (good, True)):
        response = client.get("/anybody", headers=headers)
        assert (response.status_code, bool(response.json()["sub"])) == (200, known)
        assert response.headers["Vary"] == "Authorization"


def test_coroutines(good: dict[str, str], mint: Mint) -> None:
    assert asynchronously("post", "/create_later", headers=good).json()["sub"]
    assert asynchronously("post", "/create_later").status_code == 401
    assert asynchronously("post", "/create", headers=good).status_code == 201
    narrow = {"Authorization": f"Bearer {mint(claims={'scope': 'openid'})}"}
    assert asynchronously("post", "/create_later", headers=narrow).status_code == 403
    response = asynchronously("get", "/anybody_later")
    assert (response.json(), response.headers["Vary"]) == ({"sub": None}, "Authorization")


class TestMiddleware:
    @pytest.fixture(autouse=True)
    def whole_project(self) -> Iterator[None]:
        with override_settings(MIDDLEWARE=[GUARD], TOKENSERVER_EXEMPT=("/anybody",)):
            yield

    def test_every_view_is_guarded(self, good: dict[str, str]) -> None:
        assert Client().get("/unguarded").status_code == 401
        assert Client().get("/unguarded", headers=good).json() == {"claims": True}
        assert Client().get("/nothing").status_code == 401

    def test_but_for_what_is_exempt(self) -> None:
        assert Client().get("/anybody").status_code == 200
        assert Client().get("/anybody/").status_code == 401

    def test_under_asgi(self, good: dict[str, str]) -> None:
        assert asynchronously("get", "/unguarded").status_code == 401
        assert asynchronously("get", "/unguarded", headers=good).json() == {"claims": True}


def test_what_cannot_be_known_is_503(client: Client, make_verifier: Callable[..., Verifier], mint: Mint) -> None:
    def check(claims: Any) -> None:
        raise RevocationsUnavailable

    with override_settings(TOKENSERVER_VERIFIER=make_verifier(check=check)):
        response = client.get("/me", headers={"Authorization": f"Bearer {mint()}"})
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")


def test_a_project_without_a_verifier_serves_nothing(client: Client, good: dict[str, str]) -> None:
    with override_settings(TOKENSERVER_VERIFIER=None):
        client.raise_request_exception = True
        with pytest.raises(ImproperlyConfigured):
            client.get("/me", headers=good)


def test_a_scope_that_can_not_be_is_found_at_the_start() -> None:
    with pytest.raises(ValueError):
        requires("posts create")


def test_it_is_loaded_as_django_loads_it() -> None:
    with override_settings(MIDDLEWARE=[GUARD]):
        get_wsgi_application()
