"""RFC 6750 at the door of a Flask application."""

import asyncio
import json
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue

from tokenserver.verify import Claims, JWKSKeys, Verifier
from tokenserver.verify.errors import Refusal, TokenError
from tokenserver.verify.flask import Guard, current_claims, find_claims, optional, requires

Mint = Callable[..., str]
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "resource_server.py"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def make_app(guard: Guard) -> Flask:
    app = Flask(__name__)
    guard.init_app(app)

    @app.route("/any", methods=["GET", "POST"])
    @requires()
    def any_token() -> dict[str, Any]:
        return {"sub": current_claims().sub, "form": request.form.to_dict()}

    @app.get("/create/<int:number>")
    @requires("posts:create", "openid")
    def create(number: int) -> dict[str, int]:
        return {"number": number}

    @app.get("/delete")
    @requires("posts:delete:any", "posts:create")
    def delete() -> str:
        return "deleted"

    @app.get("/posts")
    @optional()
    def posts() -> dict[str, str | None]:
        claims = find_claims()
        return {"sub": claims.sub if claims else None}

    @app.get("/open")
    def unguarded() -> dict[str, bool]:
        return {"guest": find_claims() is None}

    @app.get("/careless")
    def careless() -> str:
        return current_claims().sub

    return app


@pytest.fixture
def client(verifier: Verifier) -> FlaskClient:
    return make_app(Guard(verifier)).test_client()


class TestRequires:
    def test_claims_reach_the_view(self, client: FlaskClient, mint: Mint) -> None:
        answer = client.get("/any", headers=bearer(mint()))
        assert answer.status_code == 200
        assert answer.json == {"sub": "6f7c5e0e-30bb-4c0f-9d41-9c6f7d6f8a10", "form": {}}

    def test_without_credentials_rfc6750_3_1(self, client: FlaskClient) -> None:
        for headers in ({}, {"Authorization": "Basic dXNlcjpwYXNz"}, {"Authorization": ""}):
            answer = client.get("/any", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="https://api.example"'
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.json == {}

    def test_invalid_token_rfc6750_3_1(self, client: FlaskClient, mint: Mint) -> None:
        for token in ("garbage", mint()[:-4], mint(claims={"exp": 1}), mint({"typ": "JWT"})):
            answer = client.get("/any", headers=bearer(token))
            assert answer.status_code == 401
            assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.json
            assert answer.json["error"] == "invalid_token"

    def test_scope_covers_or_403_rfc6750_3_1(self, client: FlaskClient, mint: Mint) -> None:
        assert client.get("/create/7", headers=bearer(mint())).json == {"number": 7}
        answer = client.get("/delete", headers=bearer(mint()))
        assert answer.status_code == 403
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
        assert 'scope="posts:delete:any posts:create"' in answer.headers["WWW-Authenticate"]
        assert answer.json
        assert answer.json["error"] == "insufficient_scope"

    def test_token_in_the_query_rfc9700_4_3_2(self, client: FlaskClient, mint: Mint) -> None:
        for headers in ({}, bearer(mint())):
            answer = client.get("/any", query_string={"access_token": mint()}, headers=headers)
            assert answer.status_code == 400
            assert 'error="invalid_request"' in answer.headers["WWW-Authenticate"]

    def test_token_in_the_form_rfc6750_2_2(self, client: FlaskClient, mint: Mint) -> None:
        for headers in ({}, bearer(mint())):
            answer = client.post("/any", data={"access_token": mint()}, headers=headers)
            assert answer.status_code == 400
            assert 'error="invalid_request"' in answer.headers["WWW-Authenticate"]

    def test_other_forms_and_bodies_are_left_alone(self, client: FlaskClient, mint: Mint) -> None:
        answer = client.post("/any", data={"title": "x"}, headers=bearer(mint()))
        assert answer.json
        assert answer.json["form"] == {"title": "x"}
        assert client.post("/any", json={"access_token": "x"}, headers=bearer(mint())).status_code == 200
        # RFC 6750 section 2.2 knows urlencoded forms alone; an upload isn't read before its sender is known.
        upload = {"data": {"access_token": "x"}, "content_type": "multipart/form-data"}
        assert client.post("/any", headers=bearer(mint()), **upload).status_code == 200

    def test_malformed_header_rfc6750_3_1(self, client: FlaskClient, mint: Mint) -> None:
        for header in ("Bearer", "Bearer a b", f"Bearer {mint()},Bearer {mint()}"):
            assert client.get("/any", headers={"Authorization": header}).status_code == 400

    def test_two_authorization_headers_rfc6750_2(self, client: FlaskClient, mint: Mint) -> None:
        headers = [("Authorization", f"Bearer {mint()}"), ("Authorization", "Bearer other")]
        assert client.get("/any", headers=headers).status_code == 400

    def test_scopes_can_be_read_off_the_view(self, client: FlaskClient) -> None:
        views = client.application.view_functions
        recorded = {name: getattr(view, "__requires__", "unguarded") for name, view in views.items()}
        assert recorded["any_token"] == ()
        assert recorded["create"] == ("posts:create", "openid")
        assert recorded["posts"] is None
        assert recorded["unguarded"] == "unguarded"
        assert views["create"].__name__ == "create"

    def test_a_scope_that_can_not_be_is_found_at_the_start(self) -> None:
        with pytest.raises(ValueError, match="scope tokens"):
            requires("posts:create posts:read")

    def test_async_views(self, verifier: Verifier, mint: Mint) -> None:
        app = Flask(__name__)
        app.ensure_sync = lambda view: lambda *args, **kwargs: asyncio.run(view(*args, **kwargs))  # type: ignore[method-assign,assignment]
        Guard(verifier).init_app(app)

        @requires()
        async def view() -> str:
            await asyncio.sleep(0)
            return current_claims().client_id

        with app.test_request_context(headers=bearer(mint())):
            assert view() == "web"  # type: ignore[comparison-overlap]


class TestOptional:
    def test_guests_pass(self, client: FlaskClient) -> None:
        assert client.get("/posts").json == {"sub": None}

    def test_a_good_token_is_known(self, client: FlaskClient, mint: Mint) -> None:
        assert client.get("/posts", headers=bearer(mint())).json == {"sub": "6f7c5e0e-30bb-4c0f-9d41-9c6f7d6f8a10"}

    def test_a_bad_token_is_refused(self, client: FlaskClient, mint: Mint) -> None:
        assert client.get("/posts", headers=bearer(mint()[:-4])).status_code == 401
        assert client.get("/posts", headers={"Authorization": "Bearer"}).status_code == 400
        assert client.get("/posts?access_token=x").status_code == 400

    def test_caches_tell_guests_from_users_rfc9111_4_1(self, client: FlaskClient, mint: Mint) -> None:
        for headers in ({}, bearer(mint()), bearer("bad")):
            assert client.get("/posts", headers=headers).headers["Vary"] == "Authorization"

    def test_claims_do_not_outlive_their_request(self, client: FlaskClient, mint: Mint) -> None:
        with client.application.app_context():
            assert client.get("/posts", headers=bearer(mint())).json != {"sub": None}
            assert client.get("/posts").json == {"sub": None}

    def test_unguarded_views_have_no_claims(self, client: FlaskClient, mint: Mint) -> None:
        assert client.get("/open", headers=bearer(mint())).json == {"guest": True}
        client.application.testing = True
        with pytest.raises(RuntimeError, match="no verified token"):
            client.get("/careless", headers=bearer(mint()))


class TestGuard:
    def test_authorize_decides_before_the_scope(self, verifier: Verifier, mint: Mint) -> None:
        asked: list[tuple[str, tuple[str, ...]]] = []

        def authorize(claims: Claims, scopes: tuple[str, ...]) -> None:
            asked.append((claims.client_id, scopes))
            if claims.roles == ("user",):
                raise PermissionError("of the application's own")

        app = make_app(Guard(verifier, authorize=authorize))
        app.register_error_handler(PermissionError, lambda error: (str(error), 403))
        client = app.test_client()
        assert client.get("/create/1", headers=bearer(mint())).status_code == 200
        assert client.get("/posts", headers=bearer(mint())).status_code == 200
        assert client.get("/posts").status_code == 200
        assert client.get("/delete", headers=bearer(mint())).status_code == 403
        delete = ("posts:delete:any", "posts:create")
        assert asked == [("web", ("posts:create", "openid")), ("web", ()), ("web", delete)]
        answer = client.get("/any", headers=bearer(mint(claims={"roles": ["user"]})))
        assert (answer.status_code, answer.text) == (403, "of the application's own")

    def test_on_error_answers_in_the_applications_words(self, verifier: Verifier, mint: Mint) -> None:
        def on_error(refusal: Refusal) -> ResponseReturnValue:
            assert isinstance(refusal, TokenError)
            return {"code": refusal.error}, refusal.status, {"WWW-Authenticate": refusal.challenge("mine")}

        client = make_app(Guard(verifier, on_error=on_error)).test_client()
        answer = client.get("/delete", headers=bearer(mint()))
        assert answer.status_code == 403
        assert answer.json == {"code": "insufficient_scope"}
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="mine"')

    def test_keys_unavailable_is_503_and_never_a_pass(
        self, make_verifier: Callable[..., Verifier], key_server: Any, mint: Mint
    ) -> None:
        key_server.pages.clear()
        client = make_app(Guard(make_verifier(keys=JWKSKeys(f"{key_server.url}/jwks")))).test_client()
        for path in ("/any", "/posts"):
            answer = client.get(path, headers=bearer(mint()))
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert "WWW-Authenticate" not in answer.headers
        assert client.get("/posts").status_code == 200
        assert client.get("/any").status_code == 401

    def test_two_applications_have_two_guards(self, verifier: Verifier, make_verifier: Any, mint: Mint) -> None:
        other = make_verifier(audience="https://other.example")
        token = mint(claims={"aud": "https://other.example"})
        assert make_app(Guard(verifier)).test_client().get("/any", headers=bearer(token)).status_code == 401
        assert make_app(Guard(other)).test_client().get("/any", headers=bearer(token)).status_code == 200

    def test_an_application_without_a_guard_serves_nothing(self, mint: Mint) -> None:
        app = Flask(__name__)
        app.testing = True
        app.add_url_rule("/", view_func=requires()(lambda: "served"))
        with pytest.raises(RuntimeError, match="no Guard"):
            app.test_client().get("/", headers=bearer(mint()))


def test_the_example(key_server: Any, mint: Mint, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = key_server.url
    metadata = json.dumps({"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}).encode()
    key_server.pages["/.well-known/oauth-authorization-server"] = (200, {}, metadata)
    monkeypatch.setenv("ISSUER", issuer)
    monkeypatch.setenv("AUDIENCE", "https://api.example")
    client = runpy.run_path(str(EXAMPLE))["app"].test_client()
    now = int(time.time())
    times = {"iss": issuer, "iat": now, "exp": now + 60}
    assert client.get("/me").status_code == 401
    answer = client.get("/me", headers=bearer(mint(claims=times)))
    assert answer.json == {"sub": "6f7c5e0e-30bb-4c0f-9d41-9c6f7d6f8a10", "client_id": "web"}
    assert client.post("/posts", headers=bearer(mint(claims=times))).status_code == 201
    assert client.post("/posts", headers=bearer(mint(claims={**times, "scope": "openid"}))).status_code == 403
