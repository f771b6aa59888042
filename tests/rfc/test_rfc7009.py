"""RFC 7009: revocation."""

from collections.abc import Callable
from typing import Any

from flask import Flask

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api, Apps, bearer
from tests.redis_servers import Topology
from tokenserver.rooms import Rooms

ANN = {"grant_type": "password", "username": "ann", "password": PASSWORD}


def is_dead(api: Api, tokens: dict[str, Any]) -> tuple[bool, bool]:
    """Of the access token, of the refresh token; the latter is spent if it lives."""
    return api.me(tokens["access_token"]).status_code == 401, api.refresh(
        tokens["refresh_token"]
    ).status_code == 401


def test_live_dead_and_unknown_tokens_are_answered_alike(api: Api):
    """Section 2.2: 200 when the client's wish holds, and nothing to tell them apart by."""
    tokens = api.signed_in()
    answers = [
        granted(api.revoke(token))
        for token in (
            tokens["access_token"],
            tokens["access_token"],
            tokens["refresh_token"],
            tokens["refresh_token"],
            "unknown",
            "rt_unknown",
            "a.b.c",
            "{}",
        )
    ]
    assert all(answer == {} for answer in answers)
    assert is_dead(api, tokens) == (True, True)


def test_access_token_dies_alone(api: Api):
    """Section 2.1: the refresh token MAY die with it; here it is the client's to say."""
    tokens = api.signed_in()
    granted(api.revoke(tokens["access_token"]))
    assert is_dead(api, tokens) == (True, False)


def test_refresh_token_takes_its_access_tokens_along(apps: Apps, api_of: Callable[[Flask], Api]):
    """Section 2.1, at once, in every process; no grace brings it back, and other sign-ins stay."""
    here, there = api_of(apps(refresh_grace=60)), api_of(apps(refresh_grace=60))
    first, other = here.signed_in(), here.login()
    second = granted(there.refresh(first["refresh_token"]))
    assert there.me(first["access_token"]).status_code == 200
    # The grace window would answer the first one with its successor (django-oauth-toolkit #1816).
    granted(here.revoke(first["refresh_token"]))
    for api in (there, here):
        assert is_dead(api, first) == (True, True)
        assert is_dead(api, second) == (True, True)
        assert api.me(other["access_token"]).status_code == 200
    assert is_dead(here, other) == (False, False)


def test_token_type_hint_never_hides_a_token(api: Api):
    """Section 2.1; an unknown hint is ignored."""
    api.register()
    for kind in ("access_token", "refresh_token"):
        for hint in ("access_token", "refresh_token", "id_token", "nonsense", ""):
            tokens = api.login()
            form = {"token": tokens[kind], "token_type_hint": hint, "client_id": "first-party"}
            granted(api.http.post("/oauth/revoke", data=form))
            assert is_dead(api, tokens)[kind == "refresh_token"], (kind, hint)


def test_token_of_another_client_is_refused_and_lives_on(api: Api, confidential: tuple[str, str]):
    """Section 2.1."""
    tokens = api.signed_in()
    theirs = granted(api.token(confidential, **ANN))
    for kind in ("access_token", "refresh_token"):
        response = api.http.post("/oauth/revoke", data={"token": tokens[kind]}, auth=confidential)
        refused(response, 400, "invalid_grant")
        refused(api.revoke(theirs[kind]), 400, "invalid_grant")
    assert is_dead(api, tokens) == (False, False)
    assert api.introspect(confidential, theirs["refresh_token"]).json["active"] is True


def test_client_must_authenticate(api: Api, confidential: tuple[str, str]):
    """Section 2.1; a public client says who it is."""
    api.register()
    tokens = granted(api.token(confidential, **ANN))
    form = {"token": tokens["refresh_token"]}
    for credentials in (None, (confidential[0], "wrong"), ("nobody", "x")):
        refused(api.http.post("/oauth/revoke", data=form, auth=credentials), 401, "invalid_client")
    by_id = {**form, "client_id": confidential[0]}
    refused(api.http.post("/oauth/revoke", data=by_id), 401, "invalid_client")
    assert api.introspect(confidential, tokens["refresh_token"]).json["active"] is True


def test_token_is_required_and_post_is_the_way(api: Api, confidential: tuple[str, str]):
    """Section 2.1."""
    refused(api.http.post("/oauth/revoke", data={}, auth=confidential), 400, "invalid_request")
    refused(api.http.post("/oauth/revoke", data={"token": ""}, auth=confidential), 400, "invalid_request")
    refused(api.http.post("/oauth/revoke?token=x", data={"token": "x"}, auth=confidential), 400, "invalid_request")
    refused(api.http.get("/oauth/revoke?token=x", auth=confidential), 405, "invalid_request")


def test_client_s_own_token(api: Api, confidential: tuple[str, str]):
    """Section 2: any kind of access token."""
    token = granted(api.token(confidential, grant_type="client_credentials"))["access_token"]
    assert api.introspect(confidential, token).json["active"] is True
    granted(api.http.post("/oauth/revoke", data={"token": token}, auth=confidential))
    assert api.introspect(confidential, token).json == {"active": False}


def test_store_down_is_not_a_yes(apps: Apps, own_redis: Topology, api_of: Callable[[Flask], Api]):
    """Section 2.2.1: 503 with Retry-After; the client must assume the token still exists, and asks again."""
    api = api_of(apps(redis_url=own_redis.url()))
    tokens = api.signed_in()
    own_redis.stop(kill=True)
    for kind in ("access_token", "refresh_token"):
        response = refused(api.revoke(tokens[kind]), 503, "temporarily_unavailable")
        assert int(response.headers["Retry-After"]) >= 1
        assert api.me(tokens["access_token"]).status_code == 503
    own_redis.start()
    granted(api.revoke(tokens["refresh_token"]))
    assert is_dead(api, tokens) == (True, True)


def test_token_for_another_audience(api: Api, rooms: Rooms):
    """Section 2: whatever resource the token is for, its client may revoke it."""
    _, secret = rooms.clients.create(
        client_id="elsewhere",
        client_name="E",
        grant_types=["client_credentials"],
        scope=["posts:create"],
        audience=["https://api.example.org"],
    )
    client = ("elsewhere", str(secret))
    token = granted(api.token(client, grant_type="client_credentials"))["access_token"]
    assert api.introspect(client, token).json["active"] is True
    granted(api.http.post("/oauth/revoke", data={"token": token}, auth=client))
    assert api.introspect(client, token).json["active"] is False


def test_logout_is_a_revocation_of_the_session(api: Api):
    tokens, other = api.signed_in(), api.login()
    assert api.http.post("/auth/logout", headers=bearer(tokens["access_token"])).status_code == 204
    assert is_dead(api, tokens) == (True, True)
    granted(api.revoke(tokens["refresh_token"]))
    assert is_dead(api, other) == (False, False)
