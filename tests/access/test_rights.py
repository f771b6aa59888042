"""Effective rights: the union over roles, at once in every process; and somebody can always manage them."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import select

from tests.access.story import assign, make_role, unassign
from tests.answers import granted, refused
from tests.conftest import ADMIN_PASSWORD, Api, Apps, bearer
from tokenserver.access.models import Role, RolePermission
from tokenserver.access.permissions import BUILTIN_ROLES, PERMISSIONS
from tokenserver.access.rights import create_builtin_roles
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.errors import Invalid
from tokenserver.rooms import Rooms
from tokenserver.storage.feed import Change, Kind
from tokenserver.storage.sql import Transaction
from tokenserver.verify.flask import requires

ApiOf = Callable[[Flask], Api]


def registered(api: Api, username: str = "ann") -> UUID:
    return UUID(api.register(username)["id"])


def test_built_in_roles(rooms: Rooms):
    rows = rooms.database.read(lambda tx: tx.scalars(select(Role)).all())
    stored = {row.name: {p.permission for p in row.permissions} for row in rows}
    assert stored == {
        "user": {"posts:create"},
        "moderator": {"posts:create", "posts:delete:any", "users:read"},
        "admin": set(PERMISSIONS),
    }
    assert all(row.builtin and row.description for row in rows)
    assert stored.keys() == BUILTIN_ROLES.keys()


def test_built_in_roles_are_made_once_and_left_as_they_were_changed(rooms: Rooms):
    def change(tx: Transaction) -> None:
        role = tx.scalar(select(Role).where(Role.name == "moderator"))
        assert role is not None
        role.permissions = []

    rooms.database.write(change)
    assert rooms.database.write(create_builtin_roles) == []
    rows = rooms.database.read(lambda tx: tx.scalars(select(Role)).all())
    assert {row.name: len(row.permissions) for row in rows}["moderator"] == 0
    rooms.database.write(lambda tx: tx.delete(tx.scalar(select(Role).where(Role.name == "moderator"))))
    assert rooms.database.write(create_builtin_roles) == ["moderator"]


def test_rights_are_the_union_over_roles(api: Api, rooms: Rooms):
    user_id = registered(api)
    make_role(rooms, "auditor", "logs:read", "posts:create")
    make_role(rooms, "empty")
    for role in ("moderator", "auditor", "empty", "auditor"):
        assign(rooms, user_id, role)
    held = rooms.rights.of(user_id)
    assert held.roles == ("auditor", "empty", "moderator", "user")
    assert held.permissions == {"posts:create", "posts:delete:any", "users:read", "logs:read"}
    me = granted(api.me(api.login()["access_token"]))
    assert (me["roles"], me["permissions"]) == (list(held.roles), sorted(held.permissions))
    unassign(rooms, user_id, "moderator")
    assert rooms.rights.of(user_id).permissions == {"posts:create", "logs:read"}


def test_number_of_queries_is_constant(app: Flask, api: Api, rooms: Rooms, queries: Callable[[Flask], Any]):
    few, many = registered(api), registered(api, "bob")
    for number in range(12):
        make_role(rooms, f"role{number}", "logs:read", "users:list")
        assign(rooms, many, f"role{number}")
    counts = []
    for user_id, roles in ((few, 1), (many, 13), (many, 13)):
        with queries(app) as counter:
            assert len(rooms.rights.of(user_id).roles) == roles
        counts.append(counter.count)
    assert counts[0] == counts[1] <= 3  # SQLite's BEGIN counts
    assert counts[2] == 0


def test_a_custom_role_is_as_good_as_a_built_in_one(apps: Apps, api_of: ApiOf):
    """Permissions decide, never a role's name."""
    app = apps()
    app.add_url_rule("/logs", "logs", requires("logs:read")(lambda: {"seen": True}))
    api, rooms = api_of(app), rooms_of(app)
    user_id = registered(api)
    make_role(rooms, "admin2")
    make_role(rooms, "reader", "logs:read")
    assign(rooms, user_id, "admin2")
    refused(api.http.get("/logs", headers=bearer(api.login()["access_token"])), 403, "insufficient_scope")
    assign(rooms, user_id, "reader")
    assert granted(api.http.get("/logs", headers=bearer(api.login()["access_token"]))) == {"seen": True}
    admin = api.login("admin", ADMIN_PASSWORD)["access_token"]
    granted(api.http.get("/logs", headers=bearer(admin)))


def test_change_holds_from_the_next_request_on_in_every_process(apps: Apps, api_of: ApiOf):
    """OWASP ASVS 8.3.2."""
    first, second = apps(), apps()
    here, there = api_of(first), api_of(second)
    rooms = rooms_of(first)
    user_id = registered(here)
    token = here.login()["access_token"]
    assert granted(there.me(token))["roles"] == ["user"]
    assign(rooms, user_id, "moderator")
    assert granted(there.me(token))["roles"] == ["moderator", "user"]
    unassign(rooms, user_id, "user")
    assert granted(there.me(token))["roles"] == ["moderator"]
    unassign(rooms, user_id, "moderator")
    assert granted(there.me(token))["permissions"] == []

    # What a role holds, too.
    assign(rooms, user_id, "user")
    assert granted(there.me(token))["permissions"] == ["posts:create"]

    def add_permission(tx: Transaction, change: Change) -> None:
        role = tx.scalar(select(Role).where(Role.name == "user"))
        assert role is not None
        role.permissions.append(RolePermission(permission="users:read"))
        change.note(Kind.ROLES_CHANGED)

    rooms.feed.change(add_permission)
    for api in (there, here):
        assert granted(api.me(token))["permissions"] == ["posts:create", "users:read"]


def test_unknown_role(api: Api, rooms: Rooms):
    user_id = registered(api)
    for role in ("nobody", "Admin", "admin ", "", "' OR 1=1 --"):
        for change in (assign, unassign):
            with pytest.raises(Invalid) as caught:
                change(rooms, user_id, role)
            assert caught.value.code == "unknown_role"
    assert rooms.rights.of(user_id).roles == ("user",)


def test_changes_are_recorded(api: Api, rooms: Rooms):
    user_id = registered(api)
    assign(rooms, user_id, "moderator")
    assign(rooms, user_id, "moderator")  # nothing new
    unassign(rooms, user_id, "moderator")
    query = select(AuditEvent).where(AuditEvent.target == str(user_id)).order_by(AuditEvent.at)
    events = rooms.database.read(lambda tx: tx.scalars(query).all())
    assert [(event.event, event.details.get("role")) for event in events] == [
        ("user:created", None),
        ("role:assigned", "user"),
        ("role:assigned", "moderator"),
        ("role:unassigned", "moderator"),
    ]
