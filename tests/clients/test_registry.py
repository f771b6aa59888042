"""Registered clients: created, found, their secrets rotated, deleted; and when the other processes know."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api, Apps
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.clients import client_secret
from tokenserver.clients.registry import BUILTIN, FIRST_PARTY
from tokenserver.errors import Conflict, Invalid, NotFound
from tokenserver.rooms import Rooms
from tokenserver.tokens.sessions import EndReason

MACHINE: dict[str, Any] = {
    "client_name": "A machine",
    "grant_types": ["client_credentials"],
    "scope": ["posts:create"],
}


def client_token(api: Api, client_id: str, secret: str | None) -> Any:
    return api.token((client_id, str(secret)), grant_type="client_credentials")


def rotated(rooms: Rooms, client_id: str) -> str:
    return rooms.feed.change(lambda tx, change: rooms.clients.rotate_secret(tx, change, client_id))


def test_secret_is_shown_once_and_kept_as_a_digest(rooms: Rooms):
    row, secret = rooms.clients.create(client_id="machine", **MACHINE)
    assert secret is not None
    stored = rooms.clients.get("machine")
    assert stored.client_secret_digest == client_secret.digest(secret)
    assert secret not in str(vars(stored))
    assert (stored.client_name, stored.grant_types, stored.scope) == (
        "A machine",
        ["client_credentials"],
        "posts:create",
    )
    assert row.created_at.utcoffset() is not None
    events = rooms.database.read(lambda tx: tx.scalars(select(AuditEvent)).all())
    created = [event for event in events if event.event == "client:created" and event.target == "machine"]
    assert len(created) == 1
    assert secret not in str([vars(event) for event in events])


def test_public_client_has_no_secret(api: Api, rooms: Rooms):
    options = {"client_name": "App", "grant_types": ["password"], "token_endpoint_auth_method": "none"}
    row, secret = rooms.clients.create(**options)
    assert (secret, row.client_secret_digest) == (None, None)
    assert len(row.client_id) == 24  # made by the server
    with pytest.raises(Conflict) as caught:
        rotated(rooms, row.client_id)
    assert caught.value.code == "public_client"
    api.register()
    granted(api.token(None, grant_type="password", username="ann", password=PASSWORD, client_id=row.client_id))


def test_what_can_t_be_registered(rooms: Rooms):
    """RFC 7591 section 2, RFC 6749 section 4.4; RFC 9700 section 4.15: no id that could be a user's."""
    wrong: list[tuple[str, dict[str, Any]]] = [
        *(
            ("client_id", {"client_id": value})
            for value in (
                *("", "a b", "a:b", "-a", "é", "a\0", "a" * 129, "../a", "a\n"),
                *("4b1d0f7e-5a43-4d0c-9a35-0a6a6b1f0c11", "4b1d0f7e5a434d0c9a350a6a6b1f0c11"),
            )
        ),
        *(
            ("grant_types", {"grant_types": value})
            for value in ([], ["nope"], ["authorization_code "], ["refresh_token"], ["client_credentials", "x"])
        ),
        ("grant_types", {"token_endpoint_auth_method": "none"}),
        *(("scope", {"scope": value}) for value in (["nope"], ["posts:create", ""], ["posts:create openid"])),
        *(
            ("token_endpoint_auth_method", {"token_endpoint_auth_method": value})
            for value in ("", "private_key_jwt", "NONE")
        ),
        *(("audience", {"audience": value}) for value in ([""], ["a b"], ["a", "b\0"], ["é"], ["x" * 256])),
        *(("audience", {"audience": value}) for value in (["a", "a"], [f"urn:{n}" for n in range(21)])),
        *(("client_name", {"client_name": value}) for value in ("x" * 256, "a\nb", "\x1b[2J", "\u202e", "\ud800")),
        *(("response_types", {"response_types": value}) for value in (["code"], ["token"], [""])),
    ]
    for field, change in wrong:
        with pytest.raises(Invalid) as caught:
            rooms.clients.create(**{**MACHINE, **change})
        assert [error.field for error in caught.value.errors] == [field], change
    assert {row.client_id for row in rooms.clients.list()} == BUILTIN.keys()


def test_ids_are_taken_once_and_distinguish_case(rooms: Rooms):
    rooms.clients.create(client_id="machine", **MACHINE)
    rooms.clients.create(client_id="Machine", **MACHINE)
    for taken in ("machine", FIRST_PARTY):
        with pytest.raises(Conflict) as caught:
            rooms.clients.create(client_id=taken, **MACHINE)
        assert caught.value.code == "client_exists"
    assert {row.client_id for row in rooms.clients.list()} == {"Machine", "machine", *BUILTIN}


def test_one_id_at_once(rooms: Rooms):
    start = Barrier(6)

    def create(_: int) -> str:
        start.wait()
        try:
            rooms.clients.create(client_id="machine", **MACHINE)
        except Conflict as error:
            return error.code
        return "created"

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(create, range(6))) == [*["client_exists"] * 5, "created"]


def test_unknown_client(rooms: Rooms):
    for client_id in ("nobody", "' OR 1=1 --", "a\0b", "\ud800", "x" * 100_000, ""):
        assert rooms.clients.find(client_id) is None
    with pytest.raises(NotFound):
        rooms.clients.get("a\0b")
    with pytest.raises(NotFound):
        rotated(rooms, "nobody")
    with pytest.raises(NotFound):
        rooms.feed.change(lambda tx, change: rooms.clients.delete(tx, change, "nobody"))


def test_new_client_and_new_secret_are_known_in_every_process_at_once(apps: Apps, api_of: Callable[[Flask], Api]):
    first, second = apps(), apps()
    here, there = api_of(first), api_of(second)
    refused(client_token(there, "machine", "x"), 401, "invalid_client")  # and that nobody was found isn't kept
    _, old = rooms_of(first).clients.create(client_id="machine", **MACHINE)
    tokens = granted(client_token(there, "machine", old))

    new = rotated(rooms_of(first), "machine")
    assert new != old
    for api in (there, here):
        refused(client_token(api, "machine", old), 401, "invalid_client")
        granted(client_token(api, "machine", new))
    # A secret is for asking; what was asked for lives its time.
    assert there.introspect(("machine", new), tokens["access_token"]).json["active"] is True


def test_deleted_client_and_its_tokens_are_dead_in_every_process_at_once(
    apps: Apps, api_of: Callable[[Flask], Api]
):
    first, second = apps(), apps()
    here, there = api_of(first), api_of(second)
    rooms = rooms_of(first)
    options = {"client_name": "App", "token_endpoint_auth_method": "none", "scope": ["posts:create"]}
    rooms.clients.create(client_id="app", grant_types=["password", "refresh_token"], **options)
    other = here.signed_in()
    form = {"grant_type": "password", "username": "ann", "password": PASSWORD, "client_id": "app"}
    tokens = granted(here.token(None, **form))
    granted(there.me(tokens["access_token"]))

    def delete(tx: Any, change: Any) -> None:
        rooms.clients.delete(tx, change, "app")
        rooms.sessions.end(tx, change, client_id="app", reason=EndReason.CLIENT_DELETED)

    rooms.feed.change(delete)
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "client_id": "app"}
    for api in (there, here):
        refused(api.me(tokens["access_token"]), 401, "invalid_token")
        refused(api.token(None, **form), 401, "invalid_client")
        refused(api.token(None, **refresh), 401, "invalid_client")
        granted(api.me(other["access_token"]))
    # Who takes the id later doesn't inherit what the first one had.
    machine = rooms.clients.create(client_id="machine", **MACHINE)
    own = granted(client_token(here, "machine", machine[1]))["access_token"]
    rooms.feed.change(lambda tx, change: rooms.clients.delete(tx, change, "machine"))
    machine = rooms.clients.create(client_id="machine", **MACHINE)
    for api in (there, here):
        assert api.introspect(("machine", str(machine[1])), own).json == {"active": False}
    rooms.clients.create(client_id="app", grant_types=["password", "refresh_token"], **options)
    for api in (there, here):
        refused(api.me(tokens["access_token"]), 401, "invalid_token")
        refused(api.token(None, **refresh), 400, "invalid_grant")
        granted(api.me(granted(api.token(None, **form))["access_token"]))


def test_built_in_client_stays(rooms: Rooms):
    with pytest.raises(Conflict) as caught:
        rooms.feed.change(lambda tx, change: rooms.clients.delete(tx, change, FIRST_PARTY))
    assert caught.value.code == "builtin_client"
    client = rooms.clients.find(FIRST_PARTY)
    assert client is not None
    assert (client.is_confidential, client.first_party) == (False, True)
    assert client.grant_types == {"password", "refresh_token"}
    with pytest.raises(Conflict):
        rotated(rooms, FIRST_PARTY)


def test_secrets_are_compared_whole():
    secret = client_secret.generate()
    digest = client_secret.digest(secret)
    assert client_secret.matches(secret, digest)
    for wrong in ("", secret[:-1], secret + "x", secret.swapcase(), "gehëim", "\ud800", "\0", digest.hex()):
        assert not client_secret.matches(wrong, digest)
    assert not client_secret.matches("", None)
    assert not client_secret.matches(secret, None)
    assert not client_secret.matches("", bytes(32))
