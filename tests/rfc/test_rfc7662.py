"""RFC 7662: introspection."""

import time
from typing import Any
from uuid import UUID

import pytest

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api, bearer
from tokenserver.identity.people import DISABLED
from tokenserver.rooms import Rooms
from tokenserver.tokens.access_token import new_jti, sign_jwt

ANN = {"grant_type": "password", "username": "ann", "password": PASSWORD}
INACTIVE = {"active": False}


@pytest.fixture
def stranger(rooms: Rooms) -> tuple[str, str]:
    """A client that may introspect nothing but its own."""
    _, secret = rooms.clients.create(
        client_id="stranger", client_name="S", grant_types=["client_credentials"], scope=["posts:create"]
    )
    return "stranger", str(secret)


def test_client_must_authenticate(api: Api, confidential: tuple[str, str]):
    """Sections 2.1 and 2.3: 401, also for public clients, which only say a name."""
    tokens = api.signed_in()
    form = {"token": tokens["access_token"]}
    for data, auth in (
        (form, None),
        (form, (confidential[0], "wrong")),
        (form, ("nobody", "x")),
        ({**form, "client_id": "first-party"}, None),
        ({**form, "client_id": confidential[0]}, None),
    ):
        response = refused(api.http.post("/oauth/introspect", data=data, auth=auth), 401, "invalid_client")
        assert response.headers["WWW-Authenticate"].startswith("Basic ")
    bearer_alone = api.http.post("/oauth/introspect", data=form, headers=bearer(tokens["access_token"]))
    refused(bearer_alone, 401, "invalid_client")


def test_post_alone_and_a_token(api: Api, confidential: tuple[str, str]):
    """Section 2.1."""
    refused(api.http.get("/oauth/introspect?token=x", auth=confidential), 405, "invalid_request")
    refused(
        api.http.post("/oauth/introspect?token=x", data={"token": "x"}, auth=confidential), 400, "invalid_request"
    )
    refused(api.http.post("/oauth/introspect", data={}, auth=confidential), 400, "invalid_request")


def test_active_access_token(api: Api, rooms: Rooms, confidential: tuple[str, str]):
    """Section 2.2."""
    user = api.register()
    tokens = granted(api.token(confidential, **ANN))
    response = api.introspect(confidential, tokens["access_token"])
    body = granted(response)
    assert (response.headers["Cache-Control"], response.mimetype) == ("no-store", "application/json")
    assert body["active"] is True
    assert (body["iss"], body["sub"], body["client_id"]) == (rooms.settings.issuer, user["id"], "backend")
    assert (body["aud"], body["token_type"], body["scope"]) == (rooms.settings.audience, "Bearer", tokens["scope"])
    assert body["exp"] - body["iat"] == 300
    assert abs(body["iat"] - time.time()) < 60
    assert UUID(body["jti"])
    assert body["roles"] == ["user"]


def test_active_refresh_token(api: Api, confidential: tuple[str, str]):
    """Section 2.2; it is not spent by asking, and a consumed one is not active."""
    user = api.register()
    tokens = granted(api.token(confidential, **ANN))
    for _ in range(2):
        body = granted(api.introspect(confidential, tokens["refresh_token"]))
        assert (body["active"], body["sub"], body["client_id"]) == (True, user["id"], "backend")
        assert body["scope"] == tokens["scope"]
        assert body["exp"] > time.time() + 86400
        assert "token_type" not in body  # it is no bearer token
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    successor = granted(api.token(confidential, **form))["refresh_token"]
    assert granted(api.introspect(confidential, tokens["refresh_token"])) == INACTIVE
    assert granted(api.introspect(confidential, successor))["active"] is True


def test_dead_and_unknown_tokens_are_told_nothing_about(api: Api, rooms: Rooms, confidential: tuple[str, str]):
    """Section 2.2: exactly {"active": false}."""
    now = int(time.time())
    api.register()
    tokens, other = granted(api.token(confidential, **ANN)), granted(api.token(confidential, **ANN, scope="openid"))
    good = rooms.active_tokens.verifier.verify(tokens["access_token"]).raw

    def signed(typ: str = "at+jwt", **claims: Any) -> str:
        return sign_jwt(rooms.keys.signer("RS256"), typ, {**good, **claims})

    assert granted(api.introspect(confidential, signed()))["active"] is True
    granted(api.http.post("/oauth/revoke", data={"token": other["refresh_token"]}, auth=confidential))
    dead = (
        "nonsense",
        "rt_nonsense",
        "a.b.c",
        "....",
        '{"payload": "x", "signatures": []}',
        "x" * 30_000,
        tokens["access_token"][:-4] + "AAAA",
        tokens["refresh_token"][:-4] + "AAAA",
        other["access_token"],
        other["refresh_token"],
        other["id_token"],
        signed(exp=now - 1),
        signed(nbf=now + 120),
        signed(iss="https://other.example"),
        signed("JWT"),
        signed(client_id="nobody"),
    )
    for token in dead:
        response = api.introspect(confidential, token)
        assert granted(response) == INACTIVE, token
        assert response.headers["Cache-Control"] == "no-store"


def test_disabled_user(api: Api, rooms: Rooms, confidential: tuple[str, str]):
    """Section 2.2: what the server would refuse isn't active."""
    user = api.register()
    tokens = granted(api.token(confidential, **ANN))
    rooms.feed.change(
        lambda tx, change: rooms.people.set_status(tx, change, UUID(user["id"]), DISABLED, rooms.sessions)
    )
    for kind in ("access_token", "refresh_token"):
        assert granted(api.introspect(confidential, tokens[kind])) == INACTIVE
    refused(api.me(tokens["access_token"]), 401, "invalid_token")
    good = rooms.active_tokens.verifier.verify(tokens["access_token"]).raw
    fresh = {**good, "jti": new_jti(int(time.time() * 1000) + 1000)}  # after the cutoff, if that could be
    assert granted(api.introspect(confidential, sign_jwt(rooms.keys.signer("RS256"), "at+jwt", fresh))) == INACTIVE
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    refused(api.token(confidential, **form), 400, "invalid_grant")
    refused(api.token(confidential, **ANN), 400, "invalid_grant")


def test_token_of_another_client(api: Api, confidential: tuple[str, str], stranger: tuple[str, str]):
    """Section 4: only for those who need to know; the others aren't even told that it exists."""
    api.register()
    tokens = granted(api.token(confidential, **ANN))
    own = granted(api.token(stranger, grant_type="client_credentials"))["access_token"]
    for kind in ("access_token", "refresh_token"):
        assert granted(api.introspect(stranger, tokens[kind])) == INACTIVE
    assert granted(api.introspect(stranger, own))["active"] is True
    # A resource server that an admin registered with tokens:introspect sees access tokens, never refresh tokens.
    assert granted(api.introspect(confidential, own))["active"] is True
    first_party = api.login()
    assert granted(api.introspect(confidential, first_party["access_token"]))["active"] is True
    assert granted(api.introspect(confidential, first_party["refresh_token"])) == INACTIVE


def test_token_type_hint_never_hides_a_token(api: Api, confidential: tuple[str, str]):
    """Section 2.1."""
    api.register()
    tokens = granted(api.token(confidential, **ANN))
    for kind in ("access_token", "refresh_token"):
        for hint in ("access_token", "refresh_token", "nonsense"):
            form = {"token": tokens[kind], "token_type_hint": hint}
            response = api.http.post("/oauth/introspect", data=form, auth=confidential)
            assert granted(response)["active"] is True


def test_client_s_own_token(api: Api, confidential: tuple[str, str]):
    """Section 2.2, RFC 9068 section 2.2: the client is the subject."""
    token = granted(api.token(confidential, grant_type="client_credentials"))["access_token"]
    body = granted(api.introspect(confidential, token))
    assert (body["active"], body["sub"], body["client_id"]) == (True, "backend", "backend")
    assert "sid" not in body
    assert body["roles"] == []


def test_token_for_a_resource_server_of_its_own(api: Api, rooms: Rooms):
    """Section 1: the protected resource that the token is for is who asks."""
    rooms.clients.create(
        client_id="app",
        client_name="A",
        grant_types=["password"],
        scope=["posts:create"],
        token_endpoint_auth_method="none",
        audience=["reports"],
    )
    _, secret = rooms.clients.create(client_id="reports", client_name="R", grant_types=["client_credentials"])
    api.register()
    token = granted(api.token(None, **ANN, client_id="app"))["access_token"]
    assert granted(api.introspect(("reports", str(secret)), token))["active"] is True
