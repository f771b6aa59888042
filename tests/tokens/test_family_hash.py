"""How families lie in Redis (ADR 0030): what they take, what is known of them where, and the version before."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update

from tests.answers import granted, refused
from tests.conftest import Api, Apps
from tests.families import Writer
from tokenserver.app import rooms_of
from tokenserver.identity.models import User
from tokenserver.rooms import Rooms
from tokenserver.storage.feed import now_ms
from tokenserver.tokens.family_stores import FamilyStores
from tokenserver.tokens.models import RefreshFamily
from tokenserver.tokens.refresh_family import Checkpoint, Family, Outcome
from tokenserver.tokens.sessions import EndReason, SignIn


@pytest.fixture
def backend() -> str:
    return "sqlite"  # it is Redis that matters


@pytest.fixture
def writer(rooms: Rooms) -> Writer:
    return Writer(rooms)


# What they take

# Beside what MEMORY USAGE tells of a key: its entry among those that expire, and a pointer to each of its two
# entries in tables of powers of two, which are there in two sizes while they grow.
EXPIRY, TABLES = 32, 2 * (8 + 16)


@pytest.mark.parametrize("length", [1, 64])
def test_a_family_takes_300_bytes_at_most_whatever_it_is_for(api: Api, rooms: Rooms, writer: Writer, length: int):
    api.register()
    user_id = rooms.database.read(lambda tx: tx.scalar(select(User.id))) or pytest.fail("nobody")
    client_id = "c" * length
    rooms.clients.create(client_id=client_id, client_name="C", grant_types=["password"], scope=["openid"])

    def start(tx: Any) -> Any:
        session = rooms.sessions.start(tx, SignIn(user_id, client_id, ("pwd", "otp", "mfa")))
        options: dict[str, Any] = {"scope": "openid " * length, "audience": ["https://api.example/"] * length}
        return rooms.sessions.start_family(tx, session, client_id=client_id, **options)

    family, started_at = rooms.database.write(start)
    rooms.refresh_tokens.publish(family, started_at)
    assert writer.redis.memory_usage(writer.key(family.id)) + EXPIRY + TABLES <= 300


# The version before: a hash of other fields


def of_the_version_before(writer: Writer, family: Family, generation: int) -> dict[str, Any]:
    epoch = writer.rooms.feed.epoch(writer.rooms.feed.bucket_of(family.id))
    state = {"e": epoch, "g": generation, "r": now_ms(), "h": "A" * 22}
    return state | {"u": "A" * 64, "c": family.client_id, "a": "pwd\nhttps://api.example"}


@pytest.fixture
def chain(api: Api, rooms: Rooms) -> list[str]:
    """Of a family that SQL knows all about."""
    chain = [api.signed_in()["refresh_token"]]
    for _ in range(3):
        chain.append(granted(api.refresh(chain[-1]))["refresh_token"])
    rooms.checkpoints.drain()
    return chain


@pytest.fixture
def left(chain: list[str], writer: Writer) -> dict[str, Any]:
    """What the version before left in its place, one generation on, which SQL hasn't heard of."""
    family = writer.rooms.refresh_tokens.find(writer.family_id(chain[0])) or pytest.fail("no family")
    fields = of_the_version_before(writer, family, 5)
    writer.write(chain[0], fields)
    return fields


@pytest.mark.parametrize("is_cold", [False, True])
@pytest.mark.parametrize("generation", [4, 5])
def test_it_goes_on_from_what_sql_knows(
    api: Api,
    apps: Apps,
    writer: Writer,
    chain: list[str],
    left: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    is_cold: bool,
    generation: int,
):
    """Also where SQL is a rotation behind, and nothing of it is worth a line in the log."""
    token = writer.rooms.refresh_tokens.issue(writer.family_id(chain[0]), generation)
    assert writer.fields(token).keys() == {name.encode() for name in left}
    with caplog.at_level(logging.WARNING, "tokenserver.tokens"):
        successor = granted((Api(apps().test_client()) if is_cold else api).refresh(token))["refresh_token"]
    assert not caplog.records
    assert successor == writer.rooms.refresh_tokens.issue(writer.family_id(chain[0]), generation + 1)
    assert writer.fields(token).keys() == {b"s", b"f"}
    assert writer.read(token).generation == generation + 1


@pytest.mark.usefixtures("left")
def test_what_sql_knows_as_consumed_is_theft_there_too(api: Api, chain: list[str]):
    refused(api.refresh(chain[1]), 401, "invalid_refresh_token")
    refused(api.refresh(chain[3]), 401, "invalid_refresh_token")


@pytest.mark.usefixtures("left")
def test_the_grace_is_that_of_sql(api: Api, chain: list[str]):
    assert granted(api.refresh(chain[2]))["refresh_token"] == chain[3]


def test_what_ended_there_has_ended(api: Api, writer: Writer, chain: list[str], left: dict[str, Any]):
    """Reuse that the version before has met and not written to SQL yet."""
    writer.write(chain[0], left | {"d": "1"})
    refused(api.refresh(chain[3]), 401, "invalid_refresh_token")
    assert writer.read(chain[3]).ended


@pytest.mark.parametrize(("times", "status"), [(1, 200), (99, 503)])
def test_one_that_is_put_back_at_the_same_moment(
    api: Api,
    rooms: Rooms,
    writer: Writer,
    chain: list[str],
    left: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    times: int,
    status: int,
):
    """By a process of the version before, between two steps of this one."""
    merge, puts_back = FamilyStores.merge, iter(range(times))

    def merge_in_vain(stores: FamilyStores, checkpoint: Checkpoint) -> Outcome | None:
        outcome = merge(stores, checkpoint)
        if next(puts_back, None) is not None:
            writer.write(chain[0], left)
        return outcome

    monkeypatch.setattr(FamilyStores, "merge", merge_in_vain)
    assert api.refresh(chain[3]).status_code == status
    monkeypatch.undo()
    assert granted(api.refresh(chain[3]))["refresh_token"] == rooms.refresh_tokens.issue(
        writer.family_id(chain[0]), 5
    )


@pytest.mark.usefixtures("left")
def test_what_ends_now_ends_in_either_form(api: Api, rooms: Rooms, writer: Writer, chain: list[str]):
    """Both versions mark it by the same field, so that it stays ended when the feed has forgotten it."""
    for token in (chain[0], api.login()["refresh_token"]):
        family_id = writer.family_id(token)
        rooms.feed.change(
            lambda tx, change, family_id=family_id: rooms.sessions.end(  # type: ignore[misc]
                tx, change, family_id=family_id, reason=EndReason.REVOKED
            )
        )
        assert writer.fields(token)[b"d"] == b"1"


def test_the_version_before_finds_none_of_its_fields(api: Api, writer: Writer):
    """So a family counts as lost for it, and SQL's checkpoint is put there in its own form."""
    token = api.signed_in()["refresh_token"]
    assert not writer.fields(token).keys() & {name.encode() for name in "egrhucaobqd"}


# Terms: what is the same in many families


def test_of_each_terms_sql_is_asked_once(api: Api, apps: Apps, writer: Writer, queries: Callable[[Flask], Any]):
    tokens = [api.signed_in(name)["refresh_token"] for name in ("ann", "bob", "eve")]
    app = apps()
    other = rooms_of(app)
    for bucket in other.store.buckets:
        other.feed.sync(bucket)
    asked = []
    for token in tokens:
        with queries(app) as counter:
            family = other.refresh_tokens.find(writer.family_id(token))
        assert family == writer.rooms.refresh_tokens.find(writer.family_id(token))
        asked.append(counter.count)
    assert asked[0] > 0
    assert asked[1:] == [0, 0]


def test_terms_of_another_than_sql_knows(api: Api, apps: Apps, writer: Writer, rooms: Rooms):
    """A family whose terms SQL tells differently by now: SQL is right."""
    token = api.signed_in()["refresh_token"]
    rooms.database.write(lambda tx: tx.execute(update(RefreshFamily).values(amr=["pwd", "otp"])))
    family = rooms_of(apps()).refresh_tokens.find(writer.family_id(token))
    assert family is not None
    assert family.amr == ("pwd", "otp")
    successor = granted(api.refresh(token))["refresh_token"]
    granted(api.refresh(successor))
