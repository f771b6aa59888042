"""Whoever can write to Redis, and has a session of their own: a family that this server didn't write there counts
as if it weren't there.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import select

from tests.answers import granted, refused
from tests.conftest import Api, Apps
from tests.families import Fields, Writer
from tests.redis_access import forget_states
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.rooms import Rooms
from tokenserver.storage.feed import now_ms
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.models import RefreshFamily
from tokenserver.tokens.refresh_family import Family, terms_of

LONG = "posts:create openid profile email phone address offline_access"


@pytest.fixture
def writer(rooms: Rooms) -> Writer:
    return Writer(rooms)


@pytest.fixture
def elsewhere(apps: Apps, api_of: Callable[[Flask], Api], api: Api) -> Api:
    """A process that has seen none of the families yet."""
    del api
    return api_of(apps())


def subject(api: Api, tokens: dict[str, Any]) -> str:
    return str(granted(api.me(tokens["access_token"]))["username"])


def test_a_family_of_somebody_else_is_no_use(api: Api, elsewhere: Api, writer: Writer):
    """Their fields in the place of one's own."""
    mine, theirs = api.signed_in(), api.signed_in("bob")
    fields = writer.fields(theirs["refresh_token"])
    writer.write(mine["refresh_token"], fields)
    assert subject(elsewhere, granted(elsewhere.refresh(mine["refresh_token"]))) == "ann"
    assert subject(elsewhere, granted(elsewhere.refresh(theirs["refresh_token"]))) == "bob"


BOB = UUID(int=7)
FORGERIES = {
    "user": {"user_id": BOB},
    "session": {"session_id": BOB},
    "client": {"client_id": "somebody"},
    "audience": {"audience": ("https://elsewhere.example",)},
    "authentication": {"authenticated_at": 1},
    "methods": {"amr": ("mfa",)},
    "absolute end": {"expires_at": 9_999_999_999_999},
    "idle end": {"idle_lifetime": 999_999_999_999},
    "scope": {"scope": LONG},
    "binding": {"binding": "bound"},
    "claims": {"claims": "{}"},
}


@pytest.mark.parametrize("what", FORGERIES)
@pytest.mark.parametrize("is_met", [False, True])
def test_everything_is_under_the_mac(
    api: Api, elsewhere: Api, writer: Writer, caplog: pytest.LogCaptureFixture, what: str, is_met: bool
):
    """What was changed is not believed, SQL's copy takes its place, and the log says so. `is_met`: the process
    knows such terms."""
    token = api.signed_in()["refresh_token"]
    before = writer.fields(token)
    family = writer.rooms.refresh_tokens.find(writer.family_id(token)) or pytest.fail("no family")
    forged = replace(family, **FORGERIES[what])
    assert forged.packed() != family.packed()
    writer.redis.hset(writer.key(token), "f", forged.packed())
    if is_met:
        rooms_of(elsewhere.http.application).refresh_tokens._stores._learn(forged)
    with caplog.at_level(logging.WARNING, "tokenserver.tokens"):
        assert subject(elsewhere, granted(elsewhere.refresh(token))) == "ann"
    assert "isn't as this server wrote it" in caplog.text
    after = writer.fields(token)
    assert after.keys() == before.keys()
    assert after[b"f"] == family.packed()
    assert writer.read(token).generation == 2


NO_FAMILY: dict[str, Callable[[Fields], Fields]] = {
    "no state": lambda fields: {b"f": fields[b"f"]},
    "no family": lambda fields: {b"s": fields[b"s"]},
    "empty": lambda fields: dict.fromkeys(fields, b""),
    "a number": lambda fields: dict.fromkeys(fields, b"1"),
    "text": lambda fields: dict.fromkeys(fields, "\ufffd".encode() * 10),
    "a short state": lambda fields: fields | {b"s": fields[b"s"][:-1]},
    "a long state": lambda fields: fields | {b"s": fields[b"s"] + b"x"},
    "a state of nothing": lambda fields: fields | {b"s": bytes(30)},
    "a state of bits": lambda fields: fields | {b"s": b"\xff" * 30},
    "a short family": lambda fields: fields | {b"f": fields[b"f"][1:]},
    "no terms": lambda fields: fields | {b"f": fields[b"f"][:-8]},
    "a long family": lambda fields: fields | {b"f": b"x" + fields[b"f"]},
    "a family of nothing": lambda fields: fields | {b"f": bytes(52)},
    "a family of bits": lambda fields: fields | {b"f": b"\xff" * 52},
}


@pytest.mark.parametrize("what", NO_FAMILY)
def test_what_is_no_family(api: Api, elsewhere: Api, writer: Writer, what: str):
    token = api.signed_in()["refresh_token"]
    for each in (elsewhere, api):  # one that has to read it, and one that knows it
        writer.write(token, NO_FAMILY[what](writer.fields(token)))
        token = granted(each.refresh(token))["refresh_token"]


@pytest.mark.parametrize("mac", [None, bytes(16), b"A" * 16])
def test_what_was_consumed_stays_so_wherever_the_generation_is_set(
    api: Api, rooms: Rooms, writer: Writer, mac: bytes | None
):
    """The number alone, without the MAC that belongs to it: with that of another, or what is none."""
    chain = [api.signed_in()["refresh_token"]]
    for _ in range(4):
        chain.append(granted(api.refresh(chain[-1]))["refresh_token"])
    rooms.checkpoints.drain()
    writer.alter(chain[0], generation=2, rotated_at=now_ms(), **({} if mac is None else {"mac": mac}))
    refused(api.refresh(chain[1]), 401, "invalid_refresh_token")
    refused(api.refresh(chain[4]), 401, "invalid_refresh_token")  # it was reuse
    events = rooms.database.read(lambda tx: tx.scalars(select(AuditEvent.event)).all())
    assert events.count("refresh_token:reused") == 1


def test_the_owner_goes_on_wherever_the_generation_is_set(api: Api, writer: Writer):
    token = granted(api.refresh(api.signed_in()["refresh_token"]))["refresh_token"]
    for generation in (0, 1, 1000, 2**31, 2**32 - 1):
        writer.alter(token, generation=generation)
        token = granted(api.refresh(token))["refresh_token"]


@pytest.mark.parametrize("ms", [-3_600_000, 3_600_000])
def test_no_time_makes_theft_of_what_is_none(api: Api, rooms: Rooms, writer: Writer, ms: int):
    """Of the same generation SQL knows since when it lives."""
    parent = api.signed_in()["refresh_token"]
    live = granted(api.refresh(parent))["refresh_token"]
    rooms.checkpoints.drain()
    writer.age(parent, -ms)
    assert granted(api.refresh(parent))["refresh_token"] == live
    granted(api.refresh(live))


def test_what_remains_of_the_grace(api: Api, rooms: Rooms, writer: Writer):
    """docs/threat-model.md: for the token that was consumed last it can be lengthened, for no older one."""
    grandparent = api.signed_in()["refresh_token"]
    parent = granted(api.refresh(grandparent))["refresh_token"]
    live = granted(api.refresh(parent))["refresh_token"]
    rooms.checkpoints.drain()

    def age(tx: Transaction) -> None:
        for family in tx.scalars(select(RefreshFamily)):
            family.rotated_at -= timedelta(seconds=60)

    rooms.database.write(age)
    writer.alter(parent, rotated_at=now_ms())
    assert granted(api.refresh(parent))["refresh_token"] == live
    refused(api.refresh(grandparent), 401, "invalid_refresh_token")
    refused(api.refresh(live), 401, "invalid_refresh_token")


@pytest.mark.parametrize(("rotated_at", "status"), [(0, 401), (2**48 - 1, 200)])
def test_a_time_that_is_none(api: Api, writer: Writer, rotated_at: int, status: int):
    token = api.signed_in()["refresh_token"]
    writer.alter(token, rotated_at=rotated_at)
    assert api.refresh(token).status_code == status  # 0: idle for ever


def test_introspection_believes_it_no_more(api: Api, confidential: tuple[str, str], writer: Writer):
    form = {"grant_type": "password", "username": "ann", "password": "correct horse 7 battery"}
    api.register()
    chain = [granted(api.token(confidential, **form, scope="openid"))["refresh_token"]]
    for _ in range(3):
        refresh = {"grant_type": "refresh_token", "refresh_token": chain[-1]}
        chain.append(granted(api.token(confidential, **refresh))["refresh_token"])
    writer.rooms.checkpoints.drain()
    writer.alter(chain[0], generation=2)
    assert granted(api.introspect(confidential, chain[1])) == {"active": False}
    assert granted(api.introspect(confidential, chain[3]))["active"] is True


def test_introspection_believes_no_copy_of_another_epoch(api: Api, confidential: tuple[str, str], writer: Writer):
    form = {"grant_type": "password", "username": "ann", "password": "correct horse 7 battery"}
    api.register()
    consumed = granted(api.token(confidential, **form, scope="openid"))["refresh_token"]
    copy = writer.fields(consumed)
    live = granted(api.token(confidential, grant_type="refresh_token", refresh_token=consumed))["refresh_token"]
    writer.rooms.checkpoints.drain()
    forget_states(writer.rooms.store)
    for bucket in writer.rooms.store.buckets:
        writer.rooms.feed.sync(bucket)
    writer.write(consumed, copy)
    assert granted(api.introspect(confidential, consumed)) == {"active": False}
    assert granted(api.introspect(confidential, live))["active"] is True


def test_a_ring_that_has_a_new_secret(
    apps: Apps, api_of: Callable[[Flask], Api], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """What the old one made is known as long as it is in the ring."""
    first, second = apps(), apps()
    parent = api_of(first).signed_in()["refresh_token"]
    old = rooms_of(first).keys.secrets("refresh_token")
    monkeypatch.setattr(rooms_of(second).refresh_tokens, "_secrets", lambda: (b"n" * 32, *old))
    with caplog.at_level(logging.WARNING, "tokenserver.tokens"):
        live = granted(api_of(second).refresh(parent))["refresh_token"]
        assert granted(api_of(second).refresh(parent))["refresh_token"] == live
        granted(api_of(second).refresh(live))
    assert not caplog.records


def test_a_copy_of_an_earlier_state_is_what_remains(api: Api, writer: Writer):
    """docs/threat-model.md: who copied a family's hash before, and has the token that was live then."""
    token = api.signed_in()["refresh_token"]
    copy = writer.fields(token)
    live = granted(api.refresh(granted(api.refresh(token))["refresh_token"]))["refresh_token"]
    writer.rooms.checkpoints.drain()
    writer.write(token, copy)
    second = granted(api.refresh(token))["refresh_token"]
    granted(api.refresh(live))  # the owner's proves a later generation
    refused(api.refresh(second), 401, "invalid_refresh_token")  # and then the thief's is reuse


def test_the_mac_is_of_family_fields_generation_and_secret():
    family = Family(
        id=UUID(int=1),
        session_id=UUID(int=2),
        user_id=UUID(int=3),
        client_id="app",
        scope=None,
        audience=("a", "b"),
        authenticated_at=4,
        amr=("pwd",),
        expires_at=5,
        idle_lifetime=6000,
        binding=None,
    )
    others = [replace(family, id=UUID(int=9)), replace(family, scope=""), replace(family, audience=("a b",))]
    others += [replace(family, binding=""), replace(family, claims="x"), replace(family, client_id="app2")]
    others += [replace(family, scope="x"), replace(family, binding="x"), replace(family, amr=("pwd", "otp"))]
    macs = [family.mac(b"k" * 32, 1), family.mac(b"k" * 32, 2), family.mac(b"j" * 32, 1)]
    macs += [each.mac(b"k" * 32, 1) for each in others]
    assert {len(mac) for mac in macs} == {16}
    assert len(set(macs)) == len(macs)


def test_it_is_read_as_it_was_written():
    bare = Family(UUID(int=1), UUID(int=2), UUID(int=3), "app", None, (), 4, (), 5, 6000, None)
    full = replace(bare, scope="openid", audience=("a", "b"), amr=("pwd", "otp"), binding="x", claims='{"a":null}')
    for family in (bare, full, replace(bare, scope=""), replace(full, client_id="")):
        like = replace(family, id=UUID(int=7), session_id=UUID(int=8), user_id=UUID(int=9), expires_at=10)
        assert terms_of(like.packed()) == terms_of(family.packed())
        read = like.unpack(family.id, family.packed())
        assert (read, read.digest) == (family, family.digest)
