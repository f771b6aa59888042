"""Errors over HTTP: RFC 9457 for REST, OAuth's own shape below /oauth/, and nothing about the inside in either."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.answers import PAGES, PROBLEM_MEMBERS, faults, granted, refused, word
from tests.conftest import ADMIN_PASSWORD, PASSWORD, Api, Apps, Databases, bearer
from tests.redis_servers import Topology
from tokenserver.app import rooms_of
from tokenserver.clients.models import ClientRow
from tokenserver.errors import ConfigurationError
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import Transaction, new_id

# For other methods, a role of that name.
ALSO_NAMES = {"/roles/verify"}


def endpoints(app: Flask) -> dict[str, set[str]]:
    """Paths, whose parameters are an id that nothing has, and the methods of each."""
    found: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        path = re.sub("<[^>]*>", str(NOBODY), rule.rule)
        if path in ALSO_NAMES:
            continue
        found.setdefault(path, set()).update((rule.methods or set()) - {"OPTIONS"})
    return found


def in_oauth_s_tongue(path: str) -> bool:
    return path.startswith("/oauth/") and not path.startswith(PAGES)


def endpoints_that(app: Flask, attribute: str) -> list[tuple[str, str]]:
    """Method and path of the views with a decorator that leaves this attribute."""
    return [
        (method, re.sub("<[^>]*>", str(NOBODY), rule.rule))
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"})
        if getattr(app.view_functions[rule.endpoint], attribute, None) is not None
    ]


NOBODY = new_id()
FORMS = ("/oauth/token", "/oauth/introspect", "/oauth/revoke")

# Everything an answer must not tell, in one message.
SECRET = (
    'SELECT password_hash FROM users; File "/srv/tokenserver/app.py"; psycopg2.OperationalError: /run/redis.sock'
)


def failing(_tx: Transaction) -> None:
    raise RuntimeError(SECRET)


def open_with(api: Api, method: str, path: str, token: str | None = None, **options: Any) -> Any:
    headers = bearer(token) if token else {}
    return api.http.open(path, method=method, headers=headers, **options)


def test_shape_of_a_problem(api: Api):
    """RFC 9457 section 3.1, and this server's members beside its own: code, request_id, errors."""
    body = refused(api.http.post("/auth/login", json={"login": 1, "nonsense": 1}), 422, "validation_failed").json
    assert body.keys() == PROBLEM_MEMBERS | {"errors"}
    assert (body["title"], body["status"], body["instance"]) == ("Unprocessable Content", 422, "/auth/login")
    assert body["type"] == "urn:tokenserver:problem:validation_failed"
    assert {error["field"] for error in body["errors"]} == {"login", "password", "nonsense"}
    assert all(error.keys() == {"field", "message"} and error["message"] for error in body["errors"])
    assert "errors" not in refused(api.http.get("/nothing"), 404, "not_found").json


def test_shape_of_an_oauth_error(api: Api):
    """RFC 6749 section 5.2, with the request's id."""
    response = refused(api.token(), 400, "invalid_request")
    assert response.json.keys() == {"error", "error_description", "request_id"}
    assert response.mimetype == "application/json"
    refused(api.http.get("/oauth/nothing"), 404, "invalid_request")


def test_every_endpoint_answers_405_with_allow_and_unknown_paths_404(app: Flask, api: Api):
    for path, methods in endpoints(app).items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"} - methods:
            code = "invalid_request" if in_oauth_s_tongue(path) else "method_not_allowed"
            response = refused(open_with(api, method, path), 405, code)
            assert set(response.headers["Allow"].split(", ")) == methods | {"OPTIONS"}
        code = "invalid_request" if in_oauth_s_tongue(path) else "not_found"
        refused(open_with(api, "GET", f"{path}/x/y"), 404, code)


def test_bodies_are_refused_by_type_size_syntax_and_fields(app: Flask, api: Api):
    """415, 413, 400 and 422, in this order."""
    token = api.login("admin", ADMIN_PASSWORD)["access_token"]
    for method, path in endpoints_that(app, "__takes__"):
        for content_type in (None, "text/plain", "application/x-www-form-urlencoded", "application/xml"):
            response = open_with(api, method, path, token, data=b"{}", content_type=content_type)
            refused(response, 415, "unsupported_media_type")
        options = {"content_type": "application/json"}
        refused(open_with(api, method, path, token, data=b" " * 65_537, **options), 413, "body_too_large")
        fits = b'{"x": "' + b"x" * (65_536 - 9) + b'"}'
        refused(open_with(api, method, path, token, data=fits, **options), 422, "validation_failed")
        for malformed in (b"", b"{", b"[]", b"null", b'"x"'):
            refused(open_with(api, method, path, token, data=malformed, **options), 400, "malformed_request")
        response = open_with(api, method, path, token, json={"nonsense": 1})
        assert "nonsense" in [
            error["field"] for error in refused(response, 422, "validation_failed").json["errors"]
        ]
        with_charset = {"content_type": "application/json; charset=utf-8"}
        refused(open_with(api, method, path, token, data=b'{"x": 1}', **with_charset), 422, "validation_failed")
    for path in FORMS:
        refused(open_with(api, "POST", path, json={}), 400, "invalid_request")
        refused(open_with(api, "POST", path, data={"token": "x" * 65_536}), 413, "invalid_request")


def test_every_401_and_403_carries_a_challenge(app: Flask, api: Api, confidential: tuple[str, str]):
    """RFC 9110 section 11.6.1: 401 MUST; RFC 6750 section 3: with at least one parameter."""
    for method, path in endpoints_that(app, "__requires__"):
        response = refused(open_with(api, method, path), 401, "authentication_required")
        assert re.fullmatch(r'Bearer realm="[^"]+"', response.headers["WWW-Authenticate"])
        response = refused(open_with(api, method, path, "nonsense"), 401, "invalid_token")
        assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]
    for body in ({"login": "nobody", "password": "x"}, {"login": "", "password": ""}):
        response = refused(api.http.post("/auth/login", json=body), 401, "invalid_credentials")
        assert re.fullmatch(r'Bearer realm="[^"]+"', response.headers["WWW-Authenticate"])
    response = refused(api.http.post("/auth/refresh", json={"refresh_token": "x"}), 401, "invalid_refresh_token")
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    own = granted(api.token(confidential, grant_type="client_credentials"))["access_token"]
    response = refused(api.me(own), 403, "user_required")
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    for path in FORMS:
        response = refused(
            api.http.post(path, data={"grant_type": "password", "client_id": "x"}), 401, "invalid_client"
        )
        assert response.headers["WWW-Authenticate"] == 'Basic realm="oauth"'


def test_an_unexpected_error_is_told_to_the_log_alone(apps: Apps, caplog: pytest.LogCaptureFixture):
    app = apps()
    errors = (RuntimeError(SECRET), ConfigurationError(SECRET), RecursionError(SECRET), KeyError(SECRET))

    def fail(number: int) -> None:
        raise errors[number]

    app.add_url_rule("/boom/<int:number>", "boom", fail)
    app.add_url_rule("/oauth/boom/<int:number>", "oauth_boom", fail)
    for number, error in enumerate(errors):
        for path, code in ((f"/boom/{number}", "internal_error"), (f"/oauth/boom/{number}", "server_error")):
            caplog.clear()
            response = app.test_client().get(path)
            assert (response.status_code, word(response)) == (500, code)
            assert faults(response) == ["status 500"]
            assert "SELECT" not in response.text + str(response.headers)
            logged = [r for r in caplog.records if r.levelname == "ERROR"]
            assert [r.exc_info[1] for r in logged if r.exc_info] == [error]
            assert response.headers["X-Request-ID"] in logged[0].getMessage()


def test_an_error_inside_a_transaction_is_not_told(apps: Apps):
    """Neither a failing statement nor a value that the database refuses."""
    app = apps()
    database = rooms_of(app).database
    app.add_url_rule(
        "/statement", view_func=lambda: database.read(lambda tx: tx.connection().exec_driver_sql("SELEC"))
    )
    app.add_url_rule("/value", "value", lambda: database.write(lambda tx: tx.add(ClientRow(client_id="x"))))
    app.add_url_rule("/own", "own", lambda: database.write(failing))
    for path in ("/statement", "/value", "/own"):
        response = app.test_client().get(path)
        # What SQLite can't tell from an outage is answered like one.
        assert (response.status_code, word(response)) in {(500, "internal_error"), (503, "store_unavailable")}
        assert not [fault for fault in faults(response) if fault != "status 500"]


def requests_that_decide(
    tokens: dict[str, Any], other: dict[str, Any], confidential: tuple[str, str]
) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Every request that must know what was revoked, or write."""
    access, auth = bearer(tokens["access_token"]), {"auth": confidential}
    credentials = {"username": "ann", "password": PASSWORD}
    first_party = {"client_id": "first-party"}
    refresh = {"refresh_token": other["refresh_token"]}
    return {
        "register": (
            "POST",
            "/auth/register",
            {"json": {**credentials, "username": "bob", "email": "b@example.org"}},
        ),
        "login": ("POST", "/auth/login", {"json": {"login": "ann", "password": PASSWORD}}),
        "wrong login": ("POST", "/auth/login", {"json": {"login": "ann", "password": "x"}}),
        "refresh": ("POST", "/auth/refresh", {"json": refresh}),
        "logout": ("POST", "/auth/logout", {"headers": access}),
        "read oneself": ("GET", "/users/me", {"headers": access}),
        "change oneself": ("PUT", "/users/me", {"headers": access, "json": {"name": "A"}}),
        "sessions": ("GET", "/users/me/sessions", {"headers": access}),
        "end a session": ("DELETE", f"/users/me/sessions/{new_id()}", {"headers": access}),
        "password grant": (
            "POST",
            "/oauth/token",
            {"data": {"grant_type": "password", **credentials, **first_party}},
        ),
        "refresh grant": (
            "POST",
            "/oauth/token",
            {"data": {"grant_type": "refresh_token", **refresh, **first_party}},
        ),
        "client grant": ("POST", "/oauth/token", {"data": {"grant_type": "client_credentials"}, **auth}),
        "introspect": ("POST", "/oauth/introspect", {"data": {"token": tokens["access_token"]}, **auth}),
        "introspect refresh": ("POST", "/oauth/introspect", {"data": {"token": tokens["refresh_token"]}, **auth}),
        "revoke": ("POST", "/oauth/revoke", {"data": {"token": tokens["access_token"], **first_party}}),
        "revoke refresh": ("POST", "/oauth/revoke", {"data": {"token": tokens["refresh_token"], **first_party}}),
    }


def unavailable(api: Api, requests: dict[str, tuple[str, str, dict[str, Any]]]) -> dict[str, tuple[int, str]]:
    """Which of the requests are not answered by 503, try again."""
    wrong = {}
    for name, (method, path, options) in requests.items():
        response = api.http.open(path, method=method, **options)
        code = "temporarily_unavailable" if path.startswith("/oauth/") else "store_unavailable"
        assert not faults(response), name
        if (response.status_code, word(response)) != (503, code):
            wrong[name] = (response.status_code, word(response))
    return wrong


def test_without_redis_nothing_is_decided(apps: Apps, own_redis: Topology, api_of: Callable[[Flask], Api]):
    """OWASP ASVS 16.5.2: 503 with Retry-After, never a 500, never a yes; and all is well when it is back."""
    app = apps(redis_url=own_redis.url())
    api = api_of(app)
    tokens, other = api.signed_in(), api.login()
    row, secret = rooms_of(app).clients.create(
        client_id="backend", client_name="B", grant_types=["client_credentials"], scope=["tokens:introspect"]
    )
    auth = (row.client_id, str(secret))
    assert granted(api.http.get("/readyz"))["status"] == "ok"

    own_redis.stop(kill=True)
    assert unavailable(api, requests_that_decide(tokens, other, auth)) == {}
    ready = api.http.get("/readyz")
    assert (ready.status_code, ready.json["missing"], ready.headers["Retry-After"]) == (503, ["redis"], "1")
    for path in ("/healthz", "/.well-known/jwks.json", "/.well-known/openid-configuration"):
        granted(api.http.get(path))

    own_redis.start()
    granted(api.refresh(other["refresh_token"]))
    api.login()
    granted(api.token(auth, grant_type="client_credentials"))


@pytest.fixture
def away(databases: Databases, backend: str) -> Callable[[Rooms], None]:
    """Takes the database away from an application, as an outage does."""

    def take(rooms: Rooms) -> None:
        url = rooms.settings.database_url
        if backend == "sqlite":
            rooms.database.engine.dispose()
            path = Path(url.removeprefix("sqlite:///"))
            for file in path.parent.glob(path.name + "*"):
                file.unlink()
            path.mkdir()
        else:
            name = url.partition("?")[0].rsplit("/", 1)[1]
            force = "CASCADE" if url.startswith("cockroachdb") else "WITH (FORCE)"
            databases._admin(backend, f'DROP DATABASE "{name}" {force}')

    return take


def test_without_sql_nothing_is_guessed(apps: Apps, api_of: Callable[[Flask], Api], away: Callable[[Rooms], None]):
    """What needs a record answers 503; what is known, and checked with Redis, goes on."""
    app = apps()
    api = api_of(app)
    tokens, other = api.signed_in(), api.login()
    row, secret = rooms_of(app).clients.create(
        client_id="backend", client_name="B", grant_types=["client_credentials"], scope=["tokens:introspect"]
    )
    auth = (row.client_id, str(secret))
    rooms_of(app).feed.follow()
    granted(api.token(auth, grant_type="client_credentials"))
    granted(api.me(tokens["access_token"]))

    away(rooms_of(app))
    requests = requests_that_decide(tokens, other, auth)
    served = unavailable(api, requests)
    assert granted(api.introspect(auth, tokens["access_token"]))["active"] is True
    assert served == {
        "read oneself": (200, ""),
        "refresh": (200, ""),
        "refresh grant": (200, ""),  # the same token within the grace: the same successor
        "client grant": (200, ""),
        "introspect": (200, ""),
        "introspect refresh": (200, ""),
    }
    assert api.http.get("/readyz").json["missing"] == ["sql"]
    # A process that knows nothing yet can't tell anything.
    stranger = api_of(apps())
    assert unavailable(stranger, requests) == {}
