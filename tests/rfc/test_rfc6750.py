"""RFC 6750: how a token is sent to this server's own routes, and how its refusal is told."""

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api, Apps, bearer
from tokenserver.access.permissions import ADMIN
from tokenserver.app import rooms_of
from tokenserver.rooms import Rooms
from tokenserver.tokens.access_token import new_jti, sign_jwt
from tokenserver.verify.flask import requires

Forge = Callable[..., str]


@pytest.fixture
def forge(rooms: Rooms, api: Api) -> Forge:
    """Signs, with this server's own key, a token that differs from a good one in the given claims."""
    good = rooms.active_tokens.verifier.verify(api.signed_in()["access_token"]).raw

    def forge(typ: str = "at+jwt", **claims: Any) -> str:
        changed = {name: value for name, value in {**good, **claims}.items() if value is not ...}
        return sign_jwt(rooms.keys.signer("RS256"), typ, changed)

    return forge


def challenge(response: Any) -> str:
    return str(response.headers["WWW-Authenticate"])


def test_scheme_in_any_case(api: Api):
    """Section 2.1, RFC 9110 section 11.1."""
    token = api.signed_in()["access_token"]
    for scheme in ("Bearer", "bearer", "BEARER"):
        granted(api.http.get("/users/me", headers={"Authorization": f"{scheme} {token}"}))


def test_without_credentials_there_is_no_error_code(api: Api, confidential: tuple[str, str]):
    """Section 3.1."""
    for headers in ({}, {"Authorization": ""}, {"Authorization": "Basic YTpi"}, {"Authorization": "DPoP x"}):
        response = refused(api.http.get("/users/me", headers=headers), 401, "authentication_required")
        assert challenge(response).startswith("Bearer realm=")
        assert "error" not in challenge(response)
    refused(api.http.get("/users/me", auth=confidential), 401, "authentication_required")


def test_token_that_is_expired_revoked_malformed_or_of_another_kind(api: Api, rooms: Rooms, forge: Forge):
    """Section 3.1, invalid_token: one word, and no hint which of them it was, but for its age."""
    now = int(time.time())
    granted(api.me(forge()))
    with_id = api.token(None, grant_type="password", username="ann", password=PASSWORD, client_id="first-party")
    tokens = granted(with_id)
    gone = api.login()["access_token"]
    assert api.http.post("/auth/logout", headers=bearer(gone)).status_code == 204
    dead = {
        "expired": forge(exp=now - 1, jti=new_jti(1)),
        "expires now": forge(exp=now),
        "not yet valid": forge(nbf=now + 120),
        "issued in the future": forge(iat=now + 120),
        "revoked": gone,
        "of a user who is gone": forge(sub="00000000-0000-4000-8000-000000000000"),
        "of a subject that is no user": forge(sub="x"),
        "of a client that is gone": forge(client_id="nobody"),
        "an ID token": forge("JWT"),
        "a logout token": forge("logout+jwt"),
        "no type": forge(""),
        "of another issuer": forge(iss="http://127.0.0.1:8000/"),
        "of a longer issuer": forge(iss="http://127.0.0.1:8000.evil.example"),
        "for another audience": forge(aud="https://other.example"),
        "for the client": forge(aud="first-party"),
        "without an end": forge(exp=...),
        "a refresh token": tokens["refresh_token"],
        "text": "nonsense",
        "two segments": ".".join(gone.split(".")[:2]),
        "unsigned": ".".join(forge().split(".")[:2]) + ".",
        "of a changed signature": forge()[:-8] + "AAAAAAAA",
    }
    for what, token in dead.items():
        response = refused(api.me(token), 401, "invalid_token")
        assert 'error="invalid_token"' in challenge(response), what


def test_scope_too_small(apps: Apps, api_of: Callable[[Flask], Api]):
    """Section 3.1: 403 insufficient_scope and what would have been enough."""
    app = apps()
    app.add_url_rule("/wide", "wide", requires("users:list", "roles:read")(lambda: {"seen": True}))
    app.add_url_rule("/narrow", "narrow", requires("posts:create")(lambda: {"seen": True}))
    api, rooms = api_of(app), rooms_of(app)
    user_id = UUID(api.register()["id"])
    token = api.login()["access_token"]
    granted(api.http.get("/narrow", headers=bearer(token)))
    response = refused(api.http.get("/wide", headers=bearer(token)), 403, "insufficient_scope")
    assert 'error="insufficient_scope"' in challenge(response)
    assert 'scope="users:list roles:read"' in challenge(response)

    # Who holds more than the token covers still has only what the token covers ...
    rooms.feed.change(lambda tx, change: rooms.rights.assign(tx, change, user_id, ADMIN, granted_by="test"))
    refused(api.http.get("/wide", headers=bearer(token)), 403, "insufficient_scope")
    admin = api.login()["access_token"]
    granted(api.http.get("/wide", headers=bearer(admin)))
    # ... and who lost a right has lost it at once, whatever the token says.
    rooms.feed.change(lambda tx, change: rooms.rights.unassign(tx, change, user_id, ADMIN))
    response = refused(api.http.get("/wide", headers=bearer(admin)), 403, "permission_denied")
    assert 'error="insufficient_scope"' in challenge(response)
    refused(api.http.get("/wide"), 401, "authentication_required")


def test_token_sent_in_two_ways_or_in_the_wrong_one(api: Api, caplog: pytest.LogCaptureFixture):
    """Sections 2 and 3.1: 400 invalid_request; 5.3, RFC 9700 4.3.2: never in the query, and in no log."""
    token = api.signed_in()["access_token"]
    caplog.set_level("DEBUG")
    for headers in ({}, bearer(token)):
        responses = [
            api.http.get(f"/users/me?access_token={token}", headers=headers),
            api.http.get(f"/users/me?%61ccess_token={token}", headers=headers),
            api.http.put("/users/me", data={"access_token": token}, headers=headers),
        ]
        for response in responses:
            refused(response, 400, "invalid_request")
            assert 'error="invalid_request"' in challenge(response)
            assert token not in response.text + str(response.headers)
    malformed = (f"Bearer {token}, Bearer {token}", f"Bearer {token} {token}", "Bearer", f'Bearer "{token}"')
    for value in malformed:
        refused(api.http.get("/users/me", headers={"Authorization": value}), 400, "invalid_request")
    assert token not in caplog.text


def test_answer_to_a_token_is_not_stored(api: Api):
    """Section 5.3."""
    token = api.signed_in()["access_token"]
    assert api.me(token).headers["Cache-Control"] == "no-store"
    assert api.me("x").headers["Cache-Control"] == "no-store"
