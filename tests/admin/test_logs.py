"""`GET /admin/logs`: every filter, in pages that nobody can forge."""

import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import delete, select, update

from tests.answers import granted, refused
from tests.conftest import ADMIN_PASSWORD, bearer
from tokenserver.audit.checkpoint import TYP
from tokenserver.audit.events import Event
from tokenserver.audit.models import AuditCheckpoint
from tokenserver.audit.record import record


@pytest.fixture
def admin(api):
    return bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])


def logs(api, admin, **query):
    return granted(api.http.get("/admin/logs", query_string=query, headers=admin))["items"]


def test_newest_first_and_up_to_this_very_request(api, admin):
    items = logs(api, admin, limit=100)
    assert (items[0]["action"], items[0]["path"]) == ("access:allowed", "/admin/logs")
    assert [item["at"] for item in items] == sorted((item["at"] for item in items), reverse=True)
    assert items[0].keys() == {
        "id",
        "at",
        "action",
        "outcome",
        "reason",
        "actor",
        "client_id",
        "address",
        "request_id",
        "method",
        "path",
        "target",
        "details",
    }


def test_a_403_is_found_by_its_request_id(api, admin):
    token = api.signed_in()["access_token"]
    answer = api.http.get("/users", headers=bearer(token))
    (item,) = logs(api, admin, request_id=answer.json["request_id"])
    assert (item["action"], item["outcome"], item["method"], item["path"]) == (
        "access:denied",
        "denied",
        "GET",
        "/users",
    )
    assert item["details"]["permissions"] == ["users:list"]


def test_by_actor(api, admin):
    tokens = api.signed_in()
    me = api.me(tokens["access_token"]).json["id"]
    items = logs(api, admin, actor=me, limit=100)
    assert {item["actor"] for item in items} == {me}
    assert {item["action"] for item in items} >= {"token:issued", "access:allowed"}


def test_by_action_and_outcome_together(api, admin):
    api.register()
    api.http.post("/auth/login", json={"login": "ann", "password": "wrong wrong"})
    api.http.get("/users/me")
    assert {item["action"] for item in logs(api, admin, outcome="denied")} == {"login:failed", "access:denied"}
    assert [item["reason"] for item in logs(api, admin, outcome="denied", action="login:failed")] == [
        "invalid_credentials"
    ]
    assert logs(api, admin, outcome="success", action="login:failed") == []


def test_by_path_whole_or_its_beginning(api, admin):
    api.http.get("/users/me")
    api.http.get("/users/me/sessions")
    paths = [item["path"] for item in logs(api, admin, path="/users/me")]
    assert paths == ["/users/me"]
    assert len(logs(api, admin, path="/users/me*")) == 2
    assert logs(api, admin, path="/users/m%") == []
    assert logs(api, admin, path="/users_me*") == []


def test_by_time(api, admin, rooms):
    api.register()
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    earlier = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert logs(api, admin, since=later) == []
    assert logs(api, admin, until=earlier) == []
    assert logs(api, admin, since=earlier, until=later, action="user:created")
    # A + that wasn't encoded
    raw = api.http.get("/admin/logs?since=2020-01-01T00:00:00+02:00", headers=admin)
    assert raw.status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("action", "user:exploded"),
        ("outcome", "maybe"),
        ("since", "yesterday"),
        ("since", "2026-01-01T00:00:00"),  # whose midnight?
        ("until", "0001-01-01T00:00:00+14:00"),
        ("limit", "0"),
        ("cursor", "AAAA"),
        ("sql", "1"),
    ],
)
def test_a_wrong_filter_is_named(api, admin, name, value):
    answer = refused(
        api.http.get("/admin/logs", query_string={name: value}, headers=admin), 422, "validation_failed"
    )
    assert [error["field"] for error in answer.json["errors"]] == [name]


def test_pages_hold_each_event_once(api, admin, rooms):
    def many(tx):
        for i in range(45):
            record(tx, Event.ROLE_CREATED, target=str(UUID(int=i)))

    rooms.database.write(many)
    found, cursor = [], None
    while True:
        query = {"limit": 20, "action": "role:created"} | ({"cursor": cursor} if cursor else {})
        page = granted(api.http.get("/admin/logs", query_string=query, headers=admin))
        found += [item["target"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(found) == sorted(str(UUID(int=i)) for i in range(45))


def test_a_cursor_does_not_open_with_another_filter(api, admin):
    cursor = granted(api.http.get("/admin/logs?limit=1", headers=admin))["next_cursor"]
    answer = api.http.get("/admin/logs", query_string={"cursor": cursor, "outcome": "denied"}, headers=admin)
    refused(answer, 422, "validation_failed")
    granted(api.http.get("/admin/logs", query_string={"cursor": cursor, "limit": 5}, headers=admin))


def test_only_who_may_read_them(api):
    refused(api.http.get("/admin/logs"), 401, "authentication_required")
    refused(api.http.get("/admin/logs", headers=bearer(api.signed_in()["access_token"])), 403, "insufficient_scope")


def test_all_but_one_name(api, admin):
    logs(api, admin)
    kinds = {item["action"] for item in logs(api, admin, limit=100)}
    assert "access:allowed" in kinds
    assert {item["action"] for item in logs(api, admin, limit=100, without="access:allowed")} == kinds - {
        "access:allowed"
    }
    refused(api.http.get("/admin/logs?without=nothing", headers=admin), 422, "validation_failed")


def test_how_far_it_is_vouched_for(api, admin, rooms):
    def state():
        return granted(api.http.get("/admin/logs/checkpoint", headers=admin))

    rooms.trail.drain_all()
    rooms.sealer.seal()
    rooms.trail.drain_all()
    sealed = state()
    assert (sealed["signature"], sealed["kid"]) == ("good", rooms.keys.signer("RS256").kid)
    api.register("ann")
    rooms.trail.drain_all()
    more = state()
    assert more["unsealed"] > sealed["unsealed"]
    assert (more["number"], more["at"]) == (sealed["number"], sealed["at"])
    rooms.sealer.seal()
    assert state()["number"] == sealed["number"] + 1


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_what_a_checkpoint_s_signature_is_worth(api, admin, rooms):
    def state(jws):
        rooms.database.write(lambda tx: tx.execute(update(AuditCheckpoint).values(jws=jws)))
        found = granted(api.http.get("/admin/logs/checkpoint", headers=admin))
        return found["signature"], found["kid"]

    kid = rooms.keys.signer("RS256").kid
    jws = rooms.database.read(lambda tx: tx.scalars(select(AuditCheckpoint.jws)).one())
    header, claims, signature = jws.split(".")
    assert state(jws) == ("good", kid)
    other = ("B" if signature[0] == "A" else "A") + signature[1:]
    assert state(f"{header}.{claims}.{other}") == ("wrong", kid)
    assert state("nonsense") == ("wrong", None)
    other = urlsafe_b64encode(json.dumps({"alg": "RS256", "kid": "x", "typ": TYP}).encode()).rstrip(b"=").decode()
    assert state(f"{other}.{claims}.{signature}") == ("unknown_key", "x")
    rooms.database.write(lambda tx: tx.execute(delete(AuditCheckpoint)))
    found = granted(api.http.get("/admin/logs/checkpoint", headers=admin))
    assert (found["number"], found["signature"]) == (None, None)
    assert found["unsealed"] > 0
