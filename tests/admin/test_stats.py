"""`GET /admin/stats`: how rights are spread, and how often they were used."""

from uuid import UUID

import pytest
from sqlalchemy import event

from tests.answers import granted, refused
from tests.conftest import ADMIN_PASSWORD, bearer
from tokenserver.access.permissions import PERMISSIONS


@pytest.fixture
def admin(api):
    return bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])


def stats(api, admin, **query):
    return granted(api.http.get("/admin/stats", query_string=query, headers=admin))


def by(items, key):
    return {item[key]: item for item in items}


def test_how_rights_are_spread(api, admin, rooms):
    ann, bob = api.register("ann"), api.register("bob")
    rooms.feed.change(
        lambda tx, change: rooms.rights.assign(tx, change, UUID(ann["id"]), "moderator", granted_by="test")
    )
    found = stats(api, admin)
    roles, permissions = by(found["roles"], "role"), by(found["permissions"], "permission")
    assert {name: role["user_count"] for name, role in roles.items()} == {"admin": 1, "moderator": 1, "user": 2}
    assert roles["moderator"]["permissions"] == ["posts:create", "posts:delete:any", "users:read"]
    assert list(permissions) == list(PERMISSIONS)
    # ann holds it twice and counts once; the admin and bob hold it too
    assert permissions["posts:create"]["holder_count"] == 3
    assert permissions["posts:create"]["roles"] == ["admin", "moderator", "user"]
    assert bob["roles"] == ["user"]


@pytest.mark.parametrize("window", ["1h", "24h", "7d", "30d"])
def test_how_often_they_were_used(api, admin, window):
    user = bearer(api.signed_in()["access_token"])
    for _ in range(2):
        api.http.get("/users", headers=user)
    api.http.get("/admin/keys", headers=admin)
    found = stats(api, admin, window=window)
    permissions = by(found["permissions"], "permission")
    assert (permissions["users:list"]["allowed"], permissions["users:list"]["denied"]) == (0, 2)
    assert (permissions["keys:read"]["allowed"], permissions["keys:read"]["denied"]) == (1, 0)
    # This request is in it.
    assert permissions["stats:read"]["allowed"] == 1
    assert found["denials"] == [{"endpoint": "GET /users", "reason": "insufficient_scope", "count": 2}]
    assert found["tokens"] == [{"grant_type": "password", "client_id": "first-party", "count": 2}]
    assert found["window"] == window
    assert found["since"] < found["until"]


def test_active_sessions(api, admin):
    tokens = api.signed_in()
    assert stats(api, admin)["active_sessions"] == 2
    api.http.post("/auth/logout", headers=bearer(tokens["access_token"]))
    assert stats(api, admin)["active_sessions"] == 1


def test_the_log_is_not_read(app, api, admin, rooms):
    statements = []
    listener = lambda *args: statements.append(args[2])  # noqa: E731
    rooms.trail.drain_all()
    stats(api, admin)
    event.listen(rooms.database.engine, "before_cursor_execute", listener)
    stats(api, admin)
    assert not [s for s in statements if "audit_events" in s and s.startswith("SELECT")]


def test_the_number_of_queries_does_not_grow_with_roles(app, api, admin, queries, rooms):
    def cost():
        rooms.trail.drain_all()
        with queries(app) as statements:
            stats(api, admin)
        return statements.count

    cost()
    before = cost()
    for name in ("a1", "a2", "a3"):
        granted(api.http.post("/roles", json={"name": name, "permissions": ["posts:create"]}, headers=admin), 201)
    assert cost() == before


def test_a_window_that_there_is_not(api, admin):
    refused(api.http.get("/admin/stats?window=2h", headers=admin), 422, "validation_failed")
