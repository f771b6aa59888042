"""Nobody hands on what they don't hold, and somebody can always manage roles: whoever asks what, and when."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from tests.access.story import (
    admin,
    asked,
    assign,
    covering,
    dump,
    events,
    feed_entries,
    holding,
    make_role,
    unassign,
    user_id_of,
)
from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api, Apps
from tokenserver.access import guards
from tokenserver.access.permissions import PERMISSIONS
from tokenserver.access.rights import Rights
from tokenserver.app import rooms_of
from tokenserver.errors import Conflict
from tokenserver.rooms import Rooms
from tokenserver.storage.feed import Change
from tokenserver.storage.sql import Transaction

ApiOf = Callable[[Flask], Api]


def put_roles(api: Api, token: str, user_id: Any, *roles: str, **options: Any) -> Any:
    return asked(api, token, "PUT", f"/users/{user_id}/roles", {"roles": roles}, **options)


def put_status(api: Api, token: str, user_id: Any, status: str, **options: Any) -> Any:
    return asked(api, token, "PUT", f"/users/{user_id}/status", {"status": status}, **options)


def put_permissions(api: Api, token: str, role: str, *permissions: str, **options: Any) -> Any:
    return asked(api, token, "PUT", f"/roles/{role}/permissions", {"permissions": permissions}, **options)


class TestOwnPermissions:
    """`exceeds_own_permissions`"""

    def test_nobody_gives_or_takes_what_they_don_t_hold(self, api: Api, rooms: Rooms):
        token = holding(api, rooms, "giver", "roles:assign", "posts:create")
        user = api.register("ann")
        make_role(rooms, "writer", "posts:create")
        make_role(rooms, "empty")
        make_role(rooms, "mixed", "posts:create", "logs:read")
        before = dump(rooms)
        for roles in (("user", "moderator"), ("user", "mixed"), ("admin",)):
            refused(put_roles(api, token, user["id"], *roles), 403, "exceeds_own_permissions")
        assert dump(rooms) == before
        for roles in (("user", "writer", "empty"), (), ("user",)):
            assert granted(put_roles(api, token, user["id"], *roles))["roles"] == sorted(roles)
        # Nor is it taken, not even by leaving it out; what stays is no matter.
        assign(rooms, user["id"], "moderator")
        refused(put_roles(api, token, user["id"], "user"), 403, "exceeds_own_permissions")
        granted(put_roles(api, token, user["id"], "user", "moderator"))
        assert granted(put_roles(api, token, user["id"], "moderator"))["roles"] == ["moderator"]

    def test_nobody_makes_themself_an_admin(self, api: Api, rooms: Rooms):
        token = holding(api, rooms, "giver", "roles:assign", "roles:write")
        mine = user_id_of(rooms, "giver")
        refused(put_roles(api, token, mine, "giver", "admin"), 403, "exceeds_own_permissions")
        refused(put_permissions(api, token, "giver", *PERMISSIONS), 403, "exceeds_own_permissions")
        body = {"name": "better", "permissions": ["roles:assign", "keys:write"]}
        refused(asked(api, token, "POST", "/roles", body), 403, "exceeds_own_permissions")
        assert set(rooms.rights.of(mine).permissions) == {"roles:assign", "roles:write"}

    def test_roles_change_by_what_the_caller_holds(self, api: Api, rooms: Rooms):
        token = holding(api, rooms, "writer", "roles:write", "posts:create")
        make_role(rooms, "spare", "logs:read")
        before = dump(rooms)
        for role, permissions in (
            ("user", ["posts:create", "logs:read"]),
            ("moderator", ["posts:create"]),
            ("moderator", []),
            ("spare", []),
            ("spare", ["posts:create"]),
        ):
            refused(put_permissions(api, token, role, *permissions), 403, "exceeds_own_permissions")
        refused(asked(api, token, "DELETE", "/roles/spare"), 403, "exceeds_own_permissions")
        assert dump(rooms) == before
        granted(put_permissions(api, token, "user"))
        granted(put_permissions(api, token, "spare", "logs:read", "posts:create"))
        granted(put_permissions(api, token, "spare", "logs:read"))
        created = {"name": "mine", "permissions": ["posts:create"]}
        granted(asked(api, token, "POST", "/roles", created), 201)
        granted(asked(api, token, "DELETE", "/roles/mine"), 204)

    def test_a_token_hands_on_no_more_than_it_covers(self, api: Api, rooms: Rooms):
        user = api.register("ann")
        narrow = covering(api, "roles:assign roles:write posts:create users:write")
        refused(put_roles(api, narrow, user["id"], "user", "moderator"), 403, "exceeds_own_permissions")
        refused(put_permissions(api, narrow, "user", "logs:read"), 403, "exceeds_own_permissions")
        granted(put_roles(api, narrow, user["id"]))
        granted(put_roles(api, narrow, user["id"], "user"))
        assign(rooms, user["id"], "admin")
        refused(
            put_status(api, covering(api, "users:write"), user["id"], "disabled"), 403, "exceeds_own_permissions"
        )
        granted(put_status(api, narrow, user["id"], "disabled"))

    def test_a_client_hands_on_no_more_than_it_may_ask_for(self, api: Api, rooms: Rooms):
        user = api.register("ann")
        make_role(rooms, "writer", "posts:create")
        _, secret = rooms.clients.create(
            client_id="robot",
            client_name="A robot",
            grant_types=["client_credentials"],
            scope=["roles:assign", "posts:create"],
        )
        assert secret
        token = api.token(("robot", secret), grant_type="client_credentials").json["access_token"]
        refused(put_roles(api, token, user["id"], "moderator"), 403, "exceeds_own_permissions")
        assert granted(put_roles(api, token, user["id"], "writer"))["roles"] == ["writer"]

    def test_what_was_lost_a_moment_ago_is_not_handed_on(
        self, api: Api, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
    ):
        """The caller was let in, and loses the right while their change waits for its turn."""
        token = holding(api, rooms, "giver", *PERMISSIONS)
        giver, user = user_id_of(rooms, "giver"), api.register("ann")
        taken, let_in = Event(), Event()
        begin = rooms.feed.change

        def begin_later(*arguments: Any) -> Any:
            let_in.set()
            return begin(*arguments)

        monkeypatch.setattr(rooms.feed, "change", begin_later)

        def take_slowly(tx: Transaction, change: Change) -> None:
            rooms.rights.unassign(tx, change, giver, "giver")
            tx.flush()
            taken.set()
            assert let_in.wait(30)
            Event().wait(0.2)  # most often, for the other one to wait for this commit

        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(begin, take_slowly)
            assert taken.wait(30)
            refused(put_roles(api, token, user["id"], "moderator"), 403, "exceeds_own_permissions")
            slow.result()
        assert rooms.rights.of(user_id_of(rooms, "ann")).roles == ("user",)

    def test_who_can_t_manage_roles_doesn_t_decide_about_who_can(self, api: Api, rooms: Rooms):
        token = holding(api, rooms, "warden", "users:write")
        users = {}
        for name, permissions in (("one", ["roles:assign"]), ("two", ["roles:write"]), ("three", ["keys:write"])):
            holding(api, rooms, name, *permissions)
            users[name] = user_id_of(rooms, name)
        for name in ("one", "two", "admin"):
            user_id = user_id_of(rooms, name)
            refused(put_status(api, token, user_id, "disabled"), 403, "exceeds_own_permissions")
            granted(put_status(api, token, user_id, "active"))  # nothing new
        granted(put_status(api, token, users["three"], "disabled"))
        granted(put_status(api, admin(api), users["one"], "disabled"))
        refused(put_status(api, token, users["one"], "active"), 403, "exceeds_own_permissions")


class TestSomebodyCanManage:
    """`last_admin`"""

    def test_each_way_to_leave_nobody(self, api: Api, rooms: Rooms):
        token, mine = admin(api), user_id_of(rooms)
        before = dump(rooms)
        rest = sorted(set(PERMISSIONS) - {"roles:write"})
        for answer in (
            put_roles(api, token, mine),
            put_roles(api, token, mine, "user", "moderator"),
            put_roles(api, token, mine, "user", dry_run="true"),
            put_status(api, token, mine, "disabled"),
            put_status(api, token, mine, "disabled", dry_run="true"),
            put_permissions(api, token, "admin"),
            put_permissions(api, token, "admin", *rest),
            put_permissions(api, token, "admin", *rest, dry_run="true"),
            put_permissions(api, token, "admin", *sorted(set(PERMISSIONS) - {"roles:assign"})),
        ):
            refused(answer, 409, "last_admin")
        assert dump(rooms) == before
        with pytest.raises(Conflict):
            unassign(rooms, mine, "admin")
        # What leaves somebody is none of them.
        granted(put_roles(api, token, mine, "admin", "user"))
        granted(put_permissions(api, token, "admin", "roles:assign", "roles:write"))

    def test_it_may_be_two_who_can_between_them(self, api: Api, rooms: Rooms):
        for name, permissions in (("assigner", ["roles:assign"]), ("writer", ["roles:write"])):
            api.register(name)
            make_role(rooms, name, *permissions)
            assign(rooms, user_id_of(rooms, name), name)
        mine, assigner, writer = (user_id_of(rooms, name) for name in ("admin", "assigner", "writer"))
        assert rooms.database.read(Rights.managers) == 3
        unassign(rooms, mine, "admin")
        assert rooms.database.read(Rights.managers) == 2
        for user_id, role in ((assigner, "assigner"), (writer, "writer")):
            with pytest.raises(Conflict):
                unassign(rooms, user_id, role)

    def test_who_is_disabled_does_not_count(self, api: Api, rooms: Rooms):
        token, mine = admin(api), user_id_of(rooms)
        other = api.register("other")["id"]
        assign(rooms, other, "admin")
        granted(put_status(api, token, other, "disabled"))
        refused(put_roles(api, token, mine), 409, "last_admin")
        refused(put_status(api, token, mine, "disabled"), 409, "last_admin")
        refused(put_permissions(api, token, "admin"), 409, "last_admin")
        granted(put_status(api, token, other, "active"))
        granted(put_status(api, token, mine, "disabled"))
        refused(put_roles(api, token, other), 401, "invalid_token")

    @pytest.mark.parametrize("way", ["roles", "status", "mixed"])
    def test_two_admins_who_remove_each_other_leave_one(self, apps: Apps, api_of: ApiOf, way: str):
        """In two processes, at the same moment."""
        here, there = apps(), apps()
        rooms = rooms_of(here)
        first, second = api_of(here), api_of(there)
        ids = [user_id_of(rooms), first.register("second")["id"]]
        for _ in range(4):
            for user_id in ids:
                restore(rooms, user_id)
            tokens = [admin(first), second.login("second")["access_token"]]
            start = Barrier(2)

            def remove(me: int, start: Barrier = start, tokens: list[str] = tokens) -> Any:
                api = (first, second)[me]
                start.wait()
                if way == "status" or (way == "mixed" and me):
                    return put_status(api, tokens[me], ids[1 - me], "disabled")
                return put_roles(api, tokens[me], ids[1 - me], "user")

            with ThreadPoolExecutor(2) as pool:
                answers = list(pool.map(remove, (0, 1)))
            statuses = sorted(answer.status_code for answer in answers)
            # Who comes second is the last one, holds nothing any more, or is out already.
            assert statuses[0] == 200
            assert statuses[1] in {401, 403, 409}, [answer.text for answer in answers]
            assert rooms.database.read(guards.can_manage)

    def test_two_of_three_admins_who_remove_each_other(self, apps: Apps, api_of: ApiOf):
        """Here both could go, but who lost a right hands nothing on and takes nothing away."""
        here, there = apps(), apps()
        rooms = rooms_of(here)
        first, second = api_of(here), api_of(there)
        ids = [user_id_of(rooms), first.register("second")["id"]]
        assign(rooms, first.register("third")["id"], "admin")
        for _ in range(4):
            for user_id in ids:
                restore(rooms, user_id)
            tokens = [admin(first), second.login("second")["access_token"]]
            start = Barrier(2)

            def remove(me: int, start: Barrier = start, tokens: list[str] = tokens) -> int:
                start.wait()
                return int(put_roles((first, second)[me], tokens[me], ids[1 - me], "user").status_code)

            with ThreadPoolExecutor(2) as pool:
                assert sorted(pool.map(remove, (0, 1))) == [200, 403]
            assert rooms.database.read(Rights.managers) == 2


def restore(rooms: Rooms, user_id: Any) -> None:
    def enable(tx: Transaction, change: Change) -> None:
        rooms.people.set_status(tx, change, UUID(str(user_id)), "active", rooms.sessions)
        rooms.rights.assign(tx, change, UUID(str(user_id)), "admin", granted_by="test")

    rooms.feed.change(enable)


class TestNothingNew:
    def test_what_changes_nothing_is_neither_recorded_nor_told(self, api: Api, rooms: Rooms):
        token, mine = admin(api), user_id_of(rooms)
        user = api.register("ann")
        make_role(rooms, "spare", "posts:create")
        before = dump(rooms)
        assert granted(put_roles(api, token, user["id"], "user", "user")) == user
        granted(put_roles(api, token, mine, "admin"))
        granted(put_status(api, token, user["id"], "active"))
        granted(put_permissions(api, token, "spare", "posts:create", "posts:create"))
        unassign(rooms, user["id"], "moderator")
        assign(rooms, user["id"], "user")
        assert dump(rooms) == before

    def test_every_change_is_recorded_with_before_and_after(self, api: Api, rooms: Rooms):
        token = admin(api)
        user = api.register("ann")
        created = granted(asked(api, token, "POST", "/roles", {"name": "spare", "permissions": ["logs:read"]}), 201)
        granted(put_roles(api, token, user["id"], "spare", "moderator"))
        granted(put_permissions(api, token, "spare", "users:read", "keys:read"))
        granted(put_roles(api, token, user["id"]))
        granted(asked(api, token, "DELETE", "/roles/spare"), 204)
        assert events(rooms, "role:", user["id"]) == [
            ("role:assigned", {"role": "user"}),
            ("role:unassigned", {"role": "user"}),
            ("role:assigned", {"role": "moderator"}),
            ("role:assigned", {"role": "spare"}),
            ("role:unassigned", {"role": "moderator"}),
            ("role:unassigned", {"role": "spare"}),
        ]
        assert events(rooms, "role:", created["id"]) == [
            ("role:created", {"role": "spare", "description": "", "permissions": ["logs:read"]}),
            (
                "role:permissions_changed",
                {"role": "spare", "before": ["logs:read"], "after": ["keys:read", "users:read"]},
            ),
            ("role:deleted", {"role": "spare", "permissions": ["keys:read", "users:read"]}),
        ]
        assert feed_entries(rooms, "roles_changed") == [""]
        assert feed_entries(rooms, "user_changed").count(user["id"]) == 3  # the first one at registration


def test_rights_hold_from_the_next_request_on_in_every_process(apps: Apps, api_of: ApiOf):
    here, there = api_of(apps()), api_of(apps())
    token = admin(here)
    user = here.register("ann")
    mine = covering(there, "posts:create users:read", "ann", PASSWORD)
    refused(asked(there, mine, "GET", f"/users/{user['id']}"), 403, "insufficient_scope")
    granted(put_permissions(here, token, "user", "posts:create", "users:read"))
    mine = there.login("ann")["access_token"]
    granted(asked(there, mine, "GET", f"/users/{user['id']}"))
    granted(put_permissions(here, token, "user", "posts:create"))
    refused(asked(there, mine, "GET", f"/users/{user['id']}"), 403, "permission_denied")
    granted(put_roles(here, token, user["id"], "moderator"))
    granted(asked(there, mine, "GET", f"/users/{user['id']}"))
    granted(put_roles(here, token, user["id"]))
    refused(asked(there, mine, "GET", f"/users/{user['id']}"), 403, "permission_denied")
    granted(put_status(here, token, user["id"], "disabled"))
    refused(there.me(mine), 401, "invalid_token")
