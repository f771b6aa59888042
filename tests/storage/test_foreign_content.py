"""Values of another type, or that can't be read, at every key of this server in Redis: nobody is let in by them, no
answer is a 5xx but 503, and what SQL knows takes their place.
"""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from tests.answers import granted, refused
from tests.conftest import Api, Apps, bearer
from tests.redis_access import raw_redis
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.audit.trail import events_key
from tokenserver.rooms import Rooms
from tokenserver.storage.feed import feed_key, state_key
from tokenserver.tokens.models import RefreshFamily
from tokenserver.tokens.refresh_token import rotations_key


@pytest.fixture
def backend() -> str:
    return "sqlite"  # it is Redis that is written to


PLANTED: dict[str, Callable[[Any, str], Any]] = {
    "string": lambda redis, key: redis.set(key, "planted"),
    "nan": lambda redis, key: redis.set(key, "nan"),
    "hash": lambda redis, key: redis.hset(key, mapping={"planted": "1", "epoch": "x"}),
    "list": lambda redis, key: redis.rpush(key, "planted"),
    "set": lambda redis, key: redis.sadd(key, "planted"),
    "sorted set": lambda redis, key: redis.zadd(key, {"planted": 1}),
    "stream": lambda redis, key: redis.xadd(key, {"planted": "1"}),
}


def ask_everything(api: Api, tokens: dict[str, Any], secret: str, page: str) -> dict[str, Any]:
    """Each entry point that looks into Redis."""
    http, token = api.http, tokens["access_token"]
    backend = ("backend", secret)
    person = {"username": "eve", "email": "eve@example.org", "password": "correct horse 7 battery"}
    return {
        "me": api.me(token),
        "wrong password": http.post("/auth/login", json={"login": "ann", "password": "wrong horse 7"}),
        "login": http.post("/auth/login", json={"login": "ann", "password": "correct horse 7 battery"}),
        "register": http.post("/auth/register", json=person),
        "client": api.token(backend, grant_type="client_credentials"),
        "introspect": api.introspect(backend, token),
        "introspect refresh": api.introspect(backend, tokens["refresh_token"]),
        "refresh": api.refresh(tokens["refresh_token"]),
        "userinfo": http.get("/oauth/userinfo", headers=bearer(token)),
        "page": http.get(page),
        "authorize": http.get(
            "/oauth/authorize?client_id=page&response_type=code&redirect_uri=https://app.example/cb&scope=openid"
            "&code_challenge_method=S256&code_challenge=" + "x" * 43
        ),
        "posts": http.post("/posts", json={"title": "t", "body": "b"}, headers=bearer(token)),
        "revoke": api.revoke(tokens["refresh_token"]),
        "refresh revoked": api.refresh(tokens["refresh_token"]),
        "me revoked": api.me(token),
        "ready": http.get("/readyz"),
    }


@pytest.fixture
def used(apps: Apps) -> tuple[Api, Rooms, dict[str, Any], str, str]:
    """An application that has written every kind of key: with tokens of ann's, a client's secret, and the page that
    somebody is at."""
    app = apps(rate_limits=True)
    api, rooms = Api(app.test_client()), rooms_of(app)
    grants = ["client_credentials"]
    _, secret = rooms.clients.create(
        client_id="backend", client_name="B", grant_types=grants, scope=["tokens:introspect"]
    )
    rooms.clients.create(
        client_id="page",
        client_name="P",
        grant_types=["authorization_code"],
        response_types=["code"],
        redirect_uris=["https://app.example/cb"],
        token_endpoint_auth_method="none",
        scope=["openid"],
    )
    tokens = api.signed_in()
    tokens = granted(api.refresh(tokens["refresh_token"]))
    page = "/login"
    answers = ask_everything(api, api.login(), secret or "", page)
    page = answers["authorize"].location or page
    assert rooms.checkpoints.leads()
    return api, rooms, tokens, secret or "", page


@pytest.mark.parametrize("how", PLANTED)
def test_a_value_of_another_type(used: tuple[Api, Rooms, dict[str, Any], str, str], how: str):
    api, rooms, tokens, secret, page = used
    redis = raw_redis(rooms.store)
    keys = sorted(redis.keys("ts:*"))
    kinds = {key.split(":", 2)[2].split(":")[0] for key in keys}
    assert kinds >= {"state", "events", "rotations", "drainer", "f", "l", "i", "feed"}
    for key in keys:
        redis.delete(key)
        PLANTED[how](redis, key)
    first = ask_everything(api, tokens, secret, page)
    assert {name: a.status_code for name, a in first.items() if a.status_code >= 500 and a.status_code != 503} == {}
    assert first["refresh revoked"].status_code in {401, 503}
    assert first["me revoked"].status_code in {401, 503}
    for _ in range(2):
        rooms.checkpoints.drain()
        rooms.trail.drain()
    healed = ask_everything(api, tokens, secret, page)
    # Of ann's old tokens it is known that they were revoked.
    assert healed["refresh revoked"].status_code == healed["me"].status_code == 401
    assert granted(healed["introspect"]) == {"active": False}
    assert granted(healed["login"])["access_token"]
    assert granted(healed["client"])["access_token"]
    assert {name: a.status_code for name, a in healed.items() if a.status_code >= 500} == {}
    fresh = granted(api.refresh(granted(healed["login"])["refresh_token"]))
    granted(api.me(fresh["access_token"]))
    rooms.trail.drain()
    events = rooms.database.read(lambda tx: tx.scalars(select(AuditEvent.event)).all())
    assert "login:failed" in events


@pytest.mark.parametrize("value", ["", "x", "nan", "-1", "1e300", "null", "[]", "{}", '"a"', "[1,2,3]", "\ud7ff"])
def test_what_can_t_be_read(used: tuple[Api, Rooms, dict[str, Any], str, str], value: str):
    api, rooms, tokens, secret, page = used
    redis = raw_redis(rooms.store)
    for key in redis.keys("ts:*"):
        kind = redis.type(key)
        if kind in {"hash", b"hash"}:
            for field in redis.hkeys(key):
                redis.hset(key, field, value)
        elif kind in {"string", b"string"}:
            redis.set(key, value, keepttl=True)
    for bucket in rooms.store.buckets:
        for stream in (feed_key(bucket), events_key(bucket), rotations_key(bucket)):
            for fields in ({"e": value, "p": value}, {"f": value, "g": value, "r": value}, {"f": value, "d": "1"}):
                redis.xadd(stream, fields)
    answers = ask_everything(api, tokens, secret, page)
    assert {
        name: a.status_code for name, a in answers.items() if a.status_code >= 500 and a.status_code != 503
    } == {}
    rooms.checkpoints.drain()
    rooms.trail.drain()
    assert not redis.xlen(events_key(0))
    assert not redis.xlen(rotations_key(0))
    for key in redis.keys("ts:*:l:*"):
        redis.delete(key)  # the limit of 1e300 is a full one, and empties in time
    answers = ask_everything(api, api.login(), secret, page)
    assert {name: a.status_code for name, a in answers.items() if a.status_code >= 500} == {}
    refused(answers["refresh revoked"], 401, "invalid_refresh_token")
    refused(answers["me revoked"], 401, "invalid_token")


def test_events_that_fit_into_no_row(api: Api, rooms: Rooms):
    """One of them keeps none of the others back."""
    redis = raw_redis(rooms.store)
    api.signed_in()
    rest = '"success",null,"x","x","x","x","GET","/",null,{}]'
    moment = 1_795_000_000_000_000
    for text in (
        f'[{moment},"e","{"x" * 300}",{rest}',
        f'[{moment},"e","a\\u0000b",{rest}',
        f'[{moment},"e",{{"a":1}},{rest}',
        f'[{10**30},"e","login:failed",{rest}',
        f'["x","e","login:failed",{rest}',
        f'[{moment},"e","token:issued",{rest}',
        f'[{moment},{{}},"access:denied","denied",null,"x","x","x","x","GET","/",null,{{"permissions":[{{}}]}}]',
        f'[{moment},"e","nested","success",null,"x","x","x","x","GET","/",null,{"[" * 980}{"]" * 980}]',
    ):
        redis.xadd(events_key(0), {"e": text})
    refused(
        api.http.post("/auth/login", json={"login": "ann", "password": "wrong horse 7"}), 401, "invalid_credentials"
    )
    rooms.trail.drain()
    assert not redis.xlen(events_key(0))
    events = rooms.database.read(lambda tx: tx.scalars(select(AuditEvent.event)).all())
    assert events.count("login:failed") == 1


def test_rotations_that_fit_into_no_row(api: Api, rooms: Rooms):
    redis = raw_redis(rooms.store)
    token = api.signed_in()["refresh_token"]
    family = rooms.refresh_tokens.parse(token)[0].hex  # type: ignore[index]
    for generation, rotated_at in ((1 << 31, 1), (1 << 70, 1), (3, 1 << 70), (3, -(1 << 70))):
        redis.xadd(rotations_key(0), {"f": family, "g": generation, "r": rotated_at})
    granted(api.refresh(token))
    rooms.checkpoints.drain()
    assert not redis.xlen(rotations_key(0))
    assert rooms.database.read(lambda tx: tx.scalar(select(RefreshFamily.generation))) == 2


def test_a_state_that_names_no_position(apps: Apps, app: Flask, api: Api, rooms: Rooms):
    tokens = api.signed_in()
    for bucket in rooms.store.buckets:
        raw_redis(rooms.store).hset(state_key(bucket), "feed", "x" * 5000)
    granted(api.me(tokens["access_token"]))
    other = Api(apps().test_client())
    granted(other.me(tokens["access_token"]))
    assert api.http.post("/auth/logout", headers=bearer(tokens["access_token"])).status_code == 204
    refused(other.me(tokens["access_token"]), 401, "invalid_token")
