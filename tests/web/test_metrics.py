"""`/metrics`: who may read it, and that each thing is counted once, by whichever door it came."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from tests.answers import granted
from tests.conftest import Api, Apps
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditCheckpoint
from tokenserver.config import Rate
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import utc_now

TOKEN = "0123456789abcdef0123456789abcdef"

Values = dict[tuple[str, ...], float]


def metrics_of(api: Api, **headers: str) -> dict[str, Values]:
    """Series → values of its labels → value."""
    text = api.http.get("/metrics", headers=headers)
    assert text.status_code == 200, text.text
    found: dict[str, Values] = {}
    for family in text_string_to_metric_families(text.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.values()))] = sample.value
    return found


class Difference:
    """What was counted since it was made. Other tests of the process have counted before."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._before = metrics_of(api)

    def of(self, series: str) -> Values:
        after = metrics_of(self._api).get(f"tokenserver_{series}", {})
        before = self._before.get(f"tokenserver_{series}", {})
        return {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}


# Who may read them


def status(app: Flask, address: str = "127.0.0.1", **headers: str) -> int:
    environ = {"REMOTE_ADDR": address}
    answer = app.test_client().get("/metrics", headers=headers, environ_overrides=environ)
    if answer.status_code == 401:
        assert answer.json is not None
        assert answer.json["code"] == "metrics_token_required"
        assert b"tokenserver_" not in answer.data
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    return answer.status_code


def test_in_development_this_machine_alone_may_read(apps: Apps):
    app = apps()
    assert (status(app), status(app, "::1"), status(app, "192.0.2.1"), status(app, "")) == (200, 200, 401, 401)
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        assert status(app, **{header: "for=127.0.0.1"}) == 401, header
    behind = apps(trusted_proxies=1)
    assert status(behind, **{"X-Forwarded-For": "192.0.2.1"}) == 401
    assert status(behind, **{"X-Forwarded-For": "127.0.0.1"}) == 200


def test_a_token_is_the_only_way_where_there_is_one(apps: Apps):
    app = apps(metrics_token=TOKEN)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert (status(app, "192.0.2.1", **bearer), status(app, **bearer), status(app)) == (200, 200, 401)
    for wrong in (f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer é"):
        assert status(app, Authorization=wrong) == 401, wrong


def test_in_production_nobody_may_without_a_token(apps: Apps):
    app = apps(env="production", issuer="https://id.example")
    assert status(app) == 401
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert status(app, **bearer) == 401
    assert status(apps(env="production", issuer="https://id.example", metrics_token=TOKEN), **bearer) == 200


def test_details_of_readiness_are_for_the_same(apps: Apps):
    app = apps()

    def read(address: str) -> dict[str, Any]:
        answer = app.test_client().get("/readyz", environ_overrides={"REMOTE_ADDR": address})
        return dict(answer.json or {})

    assert read("192.0.2.1") == {"status": "ok", "missing": []}
    assert set(read("127.0.0.1")["parts"]) == {"clock", "sql", "schema", "initialised", "redis", "marker", "keys"}


def test_both_formats_are_spoken(api: Api):
    plain = api.http.get("/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert plain.headers["Cache-Control"] == "no-store"
    newer = api.http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert newer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert newer.text.endswith("# EOF\n")


# Counting


def test_each_request_is_counted_once_by_whichever_door(api: Api, confidential: tuple[str, str]):
    counted = Difference(api)
    grant = {"grant_type": "client_credentials"}
    for _ in range(3):  # at the door
        granted(api.token(confidential, **grant))
    for _ in range(2):  # by Flask
        headers = {"Accept": "application/json, text/plain"}
        granted(api.http.post("/oauth/token", data=grant, auth=confidential, headers=headers))
    api.token((confidential[0], "wrong"), **grant)  # from the door to Flask
    for _ in range(2):  # the second one from what the door kept
        granted(api.http.get("/.well-known/jwks.json"))
    api.http.get("/nothing/here")
    api.http.open("/nothing/here", method="BREW")
    assert counted.of("requests_total") == {
        ("/oauth/token", "2xx", "POST"): 5,
        ("/oauth/token", "4xx", "POST"): 1,
        ("/.well-known/jwks.json", "2xx", "GET"): 2,
        ("4xx", "GET", "none"): 1,
        ("4xx", "none", "other"): 1,
        ("/metrics", "2xx", "GET"): 1,
    }
    found = counted.of("request_duration_seconds_count")
    assert (found["/oauth/token",], found["/.well-known/jwks.json",], found["none",]) == (6, 2, 2)
    assert counted.of("tokens_issued_total") == {("client_credentials",): 5}


def test_labels_are_templates(api: Api):
    tokens = api.signed_in()
    counted = Difference(api)
    for number in range(3):
        api.http.get(f"/posts/00000000-0000-0000-0000-00000000000{number}")
    api.me(tokens["access_token"])
    assert counted.of("requests_total") == {
        ("/posts/{post_id}", "4xx", "GET"): 3,
        ("/users/me", "2xx", "GET"): 1,
        ("/metrics", "2xx", "GET"): 1,
    }


def test_what_becomes_of_refresh_tokens(apps: Apps, api_of: Callable[[Flask], Api]):
    api = api_of(apps(refresh_grace=1))
    counted = Difference(api)
    old = api.signed_in()["refresh_token"]
    newer = granted(api.refresh(old))["refresh_token"]
    granted(api.refresh(old))  # within the grace
    newest = granted(api.refresh(newer))["refresh_token"]
    assert api.refresh(old).status_code == 401  # two generations old: reuse
    assert api.refresh(newest).status_code == 401
    found = counted.of("refreshes_total")
    assert (found["rotated",], found["replayed",], found["reused",]) == (2, 1, 1)
    assert counted.of("replays_detected_total") == {("refresh_token",): 1}
    assert counted.of("tokens_issued_total") == {("password",): 1, ("refresh_token",): 3}


def test_a_family_that_redis_lost(api: Api, rooms: Rooms):
    first = api.signed_in()["refresh_token"]
    counted = Difference(api)
    family = rooms.refresh_tokens.parse(first)
    assert family is not None
    bucket, key = rooms.feed.bucket_of(family[0]), rooms.feed.family_key(family[0])
    rooms.store.ask_unverified(bucket, lambda client: client.delete(key))
    granted(api.refresh(first))
    assert counted.of("families_rebuilt_total") == {(): 1}
    assert counted.of("refreshes_total") == {("rotated",): 1}


def test_sign_ins_and_denials(apps: Apps, api_of: Callable[[Flask], Api]):
    api = api_of(apps())
    api.register()
    counted = Difference(api)
    tokens = api.login()
    api.http.post("/auth/login", json={"login": "ann", "password": "wrong horse 7 battery"})
    assert counted.of("sign_ins_total") == {("success",): 1, ("invalid_credentials",): 1}
    assert counted.of("password_hash_wait_seconds_count") == {(): 2}
    denied = api.http.get("/users", headers={"Authorization": f"Bearer {tokens['access_token']}"})
    assert denied.status_code == 403
    assert counted.of("denials_total") == {("GET /users", "insufficient_scope", "users:list"): 1}


def test_rate_limits(apps: Apps, api_of: Callable[[Flask], Api]):
    app = apps(limit_token=Rate(2, 86400))
    api = api_of(app)
    row, secret = rooms_of(app).clients.create(
        client_id="eager", client_name="E", grant_types=["client_credentials"], scope=["posts:create"]
    )
    counted = Difference(api)
    statuses = [
        api.token((row.client_id, str(secret)), grant_type="client_credentials").status_code for _ in range(5)
    ]
    assert statuses == [200, 200, 429, 429, 429]
    assert counted.of("rate_limit_refusals_total") == {("token",): 3}


def test_stores_are_timed(api: Api):
    counted = Difference(api)
    api.register()
    assert counted.of("sql_transaction_duration_seconds_count")["write",] >= 1
    assert counted.of("redis_duration_seconds_count")[()] >= 1


# What is looked up


def test_what_is_looked_up_in_the_stores(api: Api, rooms: Rooms):
    api.signed_in()
    found = metrics_of(api)
    assert found["tokenserver_stream_length"]["events",] >= 1
    assert found["tokenserver_stream_lag_seconds"]["events",] > 0
    assert found["tokenserver_signing_key_age_seconds"]["RS256", "active"] >= 0
    assert set(found["tokenserver_ready"].values()) == {1}
    assert found["tokenserver_queue_length"]["mail",] == 1  # to confirm the address
    assert found["tokenserver_queue_age_seconds"]["mail",] > 0
    rooms.trail.drain_all()
    rooms.sealer.seal(everything=True)
    after = metrics_of(api)
    assert after["tokenserver_audit_checkpoint_valid"] == {(): 1}
    assert after["tokenserver_audit_unsealed_age_seconds"][()] < 60

    def forge(tx: Any) -> None:
        tx.add(AuditCheckpoint(number=10_000, at=utc_now(), jws="a.b.c"))

    rooms.database.write(forge)
    assert metrics_of(api)["tokenserver_audit_checkpoint_valid"] == {(): 0}


def test_without_a_store_the_rest_is_told(apps: Apps, own_redis: Any, api_of: Callable[[Flask], Api]):
    api = api_of(apps(redis_url=own_redis.url()))
    api.register()
    own_redis.stop(kill=True)
    counted = Difference(api)
    assert api.http.post("/auth/login", json={"login": "ann", "password": "x"}).status_code == 503
    assert counted.of("store_failures_total")["redis",] >= 1
    found = metrics_of(api)
    ready = {key[0]: value for key, value in found["tokenserver_ready"].items()}
    assert ready == dict.fromkeys(("clock", "sql", "schema", "initialised", "marker", "keys"), 1) | {"redis": 0}
    assert "tokenserver_stream_length" not in found
    assert found["tokenserver_queue_length"]["mail",] == 1
    own_redis.start()


@pytest.mark.parametrize("url", ["/metrics", "/readyz"])
def test_neither_needs_a_right_clock(api: Api, rooms: Rooms, monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setattr(rooms.clock, "_fault", "it is 60.0 s ahead of that of Redis")
    answer = api.http.get(url)
    assert answer.status_code == (200 if url == "/metrics" else 503)
    assert ('tokenserver_ready{part="clock"} 0.0' in answer.text) or answer.json["missing"] == ["clock"]
