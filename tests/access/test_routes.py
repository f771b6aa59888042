"""`/roles` and `/permissions`."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask

from tests.access.story import NOBODY, admin, asked, assign, dump, holding, make_role
from tests.answers import granted, refused
from tests.conftest import Api, Apps, bearer
from tokenserver.access import roles
from tokenserver.access.models import Role, RoleAssignment, RolePermission
from tokenserver.access.permissions import BUILTIN_ROLES, PERMISSIONS
from tokenserver.app import rooms_of
from tokenserver.errors import Conflict
from tokenserver.identity.models import User
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import Transaction, utc_now

ApiOf = Callable[[Flask], Api]
GOOD_NAMES = ("a", "A1", "7", "x" * 64, "team:reader", "a.b_c-d:e", "0x", "verify2", "deadbeef")
BAD_NAMES = (
    "",
    "x" * 65,
    ".a",
    "-a",
    "a b",
    " a",
    "a ",
    "a/b",
    "a%2Fb",
    "a\n",
    "a\tb",
    "a\x7f",
    "ａｄｍｉｎ",
    "аdmin",  # Cyrillic
    "admin\u200b",
    "\u202enimda",
    "ad\u00admin",
    "é",
    "e\u0301",
    "ﬁ",
    "١",
    "\U0001f600",
    "verify",
    "Verify",
    NOBODY,
    NOBODY.upper(),
    NOBODY.replace("-", ""),
    f"urn:uuid:{NOBODY}",
    f"{NOBODY.replace('-', '')}-",
)


def names(page: dict[str, Any]) -> list[str]:
    return [role["name"] for role in page["items"]]


class TestReading:
    def test_list(self, api: Api, rooms: Rooms):
        token = admin(api)
        for name in ("ann", "bob"):
            api.register(name)
        listed = granted(asked(api, token, "GET", "/roles"))
        assert listed["next_cursor"] is None
        assert names(listed) == ["admin", "moderator", "user"]
        by_name = {role["name"]: role for role in listed["items"]}
        for name, (description, permissions) in BUILTIN_ROLES.items():
            role = by_name[name]
            UUID(role.pop("id"))
            assert role == {
                "name": name,
                "description": description,
                "permissions": sorted(permissions),
                "builtin": True,
                "user_count": {"admin": 1, "moderator": 0, "user": 2}[name],
            }

    def test_pages(self, api: Api, rooms: Rooms, queries: Callable[[Flask], Any], app: Flask):
        token = admin(api)
        for name in ("b", "B2", "a-1", "a.1", "Z", "zz"):
            make_role(rooms, name, "posts:create", "logs:read")
        everything = granted(asked(api, token, "GET", "/roles", limit=100))["items"]
        assert len(everything) == 9
        for limit in (1, 2, 4, 9):
            seen: list[Any] = []
            query: dict[str, Any] = {"limit": limit}
            while True:
                page = granted(asked(api, token, "GET", "/roles", **query))
                assert len(page["items"]) <= limit
                seen += page["items"]
                if page["next_cursor"] is None:
                    break
                query["cursor"] = page["next_cursor"]
            assert seen == everything
        cursor = granted(asked(api, token, "GET", "/permissions", limit=1))["next_cursor"]
        refused(asked(api, token, "GET", "/roles", cursor=cursor), 422, "validation_failed")
        counts = []
        for limit in (1, 9):
            with queries(app) as counter:
                asked(api, token, "GET", "/roles", limit=limit)
            counts.append(counter.count)
        assert counts[0] == counts[1] <= 4  # SQLite's BEGIN counts

    def test_one_by_name_and_by_id(self, api: Api, rooms: Rooms):
        token = admin(api)
        role_id = make_role(rooms, "Team:1", "logs:read")
        for spelling in ("Team:1", str(role_id), str(role_id).upper()):
            assert granted(asked(api, token, "GET", f"/roles/{spelling}"))["name"] == "Team:1"
        for unknown in ("team:1", "Team", str(uuid4()), role_id.hex, f"{{{role_id}}}", "Team:1%00", "%FF", "a b"):
            refused(asked(api, token, "GET", f"/roles/{unknown}"), 404, "role_not_found")

    def test_permissions(self, api: Api):
        token = admin(api)
        listed = granted(asked(api, token, "GET", "/permissions", limit=100))
        assert listed["next_cursor"] is None
        assert {each["name"]: each["description"] for each in listed["items"]} == PERMISSIONS
        first = granted(asked(api, token, "GET", "/permissions", limit=9))
        rest = granted(asked(api, token, "GET", "/permissions", limit=9, cursor=first["next_cursor"]))
        assert first["items"] + rest["items"] == listed["items"]
        assert rest["next_cursor"] is None

    def test_verify(self, api: Api, rooms: Rooms):
        token = api.signed_in()["access_token"]
        role_id = make_role(rooms, "premium")

        def verify(**query: Any) -> Any:
            return asked(api, token, "GET", "/roles/verify", **query)

        for given, match in ((str(role_id), True), (str(role_id).upper(), True), (NOBODY, False)):
            answer = granted(verify(role="premium", role_id=given))
            assert answer == {"match": match, "role": "premium", "role_id": given.lower()}
        for unknown in ("Premium", "premium ", "", "ｐremium", str(role_id), "x" * 1000):
            refused(verify(role=unknown, role_id=str(role_id)), 404, "role_not_found")
        for malformed in ("", "x", role_id.hex, f"{{{role_id}}}", f"urn:uuid:{role_id}", f"{role_id} ", "x" * 16):
            errors = refused(verify(role="premium", role_id=malformed), 422, "validation_failed").json["errors"]
            assert [error["field"] for error in errors] == ["role_id"]
        for query, missing in (({}, ["role", "role_id"]), ({"role": "premium"}, ["role_id"])):
            errors = refused(verify(**query), 422, "validation_failed").json["errors"]
            assert [error["field"] for error in errors] == missing
        refused(api.http.get("/roles/verify"), 401, "authentication_required")

    def test_who_may(self, api: Api, rooms: Rooms):
        """By the permission, not by the role."""
        user = api.signed_in()["access_token"]
        reader = holding(api, rooms, "reader", "roles:read")
        for path in ("/roles", "/roles/user", "/permissions", "/admin/explain?user=ann&permission=logs:read"):
            refused(api.http.get(path), 401, "authentication_required")
            refused(api.http.get(path, headers=bearer(user)), 403, "insufficient_scope")
            granted(api.http.get(path, headers=bearer(reader)))
        for method, path, body in (
            ("POST", "/roles", {"name": "x"}),
            ("PUT", "/roles/user/permissions", {"permissions": []}),
            ("DELETE", "/roles/reader", None),
        ):
            refused(api.http.open(path, method=method, json=body), 401, "authentication_required")
            for token in (user, reader):
                refused(asked(api, token, method, path, body), 403, "insufficient_scope")

    def test_search(self, api: Api, rooms: Rooms):
        for name in ("Sales.north", "sales.south", "presales"):
            make_role(rooms, name)
        token = admin(api)

        def found(q: str, **query: Any) -> list[str]:
            return [role["name"] for role in granted(asked(api, token, "GET", "/roles", q=q, **query))["items"]]

        assert sorted(found("SALES")) == ["Sales.north", "presales", "sales.south"]
        assert found("s.n") == ["Sales.north"]
        assert found("%") == found("_") == []
        first = granted(asked(api, token, "GET", "/roles", q="sales", limit=1))
        refused(asked(api, token, "GET", "/roles", q="o", cursor=first["next_cursor"]), 422, "validation_failed")
        rest = granted(asked(api, token, "GET", "/roles", q="sales", cursor=first["next_cursor"]))["items"]
        assert len(rest) == 2
        assert rest[0]["name"] != first["items"][0]["name"]


class TestCreating:
    def test_create(self, api: Api):
        token = admin(api)
        body = {
            "name": "Premium",
            "description": "Who pays – 安",
            "permissions": ["posts:create", "logs:read", "posts:create"],
        }
        response = asked(api, token, "POST", "/roles", body)
        role = granted(response, 201)
        UUID(role["id"])
        assert role == {
            "id": role["id"],
            "name": "Premium",
            "description": "Who pays – 安",
            "permissions": ["logs:read", "posts:create"],
            "builtin": False,
            "user_count": 0,
        }
        read = asked(api, token, "GET", "/roles/Premium")
        assert granted(read) == role
        assert read.headers["ETag"] == response.headers["ETag"]
        bare = granted(asked(api, token, "POST", "/roles", {"name": "bare"}), 201)
        assert (bare["description"], bare["permissions"]) == ("", [])

    def test_names(self, api: Api, rooms: Rooms):
        token = admin(api)
        for name in GOOD_NAMES:
            assert granted(asked(api, token, "POST", "/roles", {"name": name}), 201)["name"] == name
        before = dump(rooms)
        for name in (*BAD_NAMES, None, 1, ["a"]):
            errors = refused(asked(api, token, "POST", "/roles", {"name": name}), 422, "validation_failed")
            assert [error["field"] for error in errors.json["errors"]] == ["name"], name
        refused(asked(api, token, "POST", "/roles", {"name": "a\0b"}), 400, "malformed_request")
        assert dump(rooms) == before

    def test_wrong_fields(self, api: Api, rooms: Rooms):
        token = admin(api)
        before = dump(rooms)
        for field, value in (
            *(("description", value) for value in ("x" * 256, "a\nb", "a\u2028b", "a\x85b", "\x1b[2J", None, 1)),
            *(("permissions", value) for value in ("posts:create", None, {}, ["posts:create"] * 1001)),
            *((field, "x") for field in ("id", "builtin", "name_key", "user_count", "created_at")),
        ):
            errors = refused(
                asked(api, token, "POST", "/roles", {"name": "x", field: value}), 422, "validation_failed"
            )
            assert [error["field"] for error in errors.json["errors"]] == [field], (field, value)
        body = {"name": "x", "permissions": ["logs:read", "logs:write", "Logs:read", "roles:*", ""]}
        errors = refused(asked(api, token, "POST", "/roles", body), 422, "unknown_permission").json["errors"]
        assert [error["field"] for error in errors] == [f"permissions.{i}" for i in (1, 2, 3, 4)]
        many = {"name": "x", "permissions": ["nothing"] * 1000}
        assert (
            len(refused(asked(api, token, "POST", "/roles", many), 422, "unknown_permission").json["errors"]) == 20
        )
        assert dump(rooms) == before

    def test_a_name_once_whatever_its_case(self, api: Api, rooms: Rooms):
        token = admin(api)
        granted(asked(api, token, "POST", "/roles", {"name": "Premium"}), 201)
        for name in ("Premium", "premium", "PREMIUM", "Admin", "user", "MODERATOR"):
            refused(asked(api, token, "POST", "/roles", {"name": name}), 409, "role_exists")

    def test_one_of_many_at_the_same_moment(self, apps: Apps, api_of: ApiOf):
        here, there = apps(), apps()
        token = admin(api_of(here))
        start = Barrier(8)

        def create(number: int) -> Any:
            api = api_of((here, there)[number % 2])
            start.wait()
            return asked(api, token, "POST", "/roles", {"name": "Premium" if number % 3 else "premium"})

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(create, range(8)))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
        for answer in answers:
            if answer.status_code == 409:
                refused(answer, 409, "role_exists")
        assert len(granted(asked(api_of(here), token, "GET", "/roles"))["items"]) == 4

    def test_one_that_is_taken_between_the_look_and_the_write(self, rooms: Rooms):
        """Without the turns of `guards.lock`, the unique index decides."""
        written = Event()

        def slowly(tx: Transaction) -> None:
            roles.create(tx, name="premium", own=None)
            written.set()
            Event().wait(0.3)

        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(rooms.database.write, slowly)
            assert written.wait(30)
            with pytest.raises(Conflict) as caught:
                rooms.database.write(lambda tx: roles.create(tx, name="Premium", own=None))
            slow.result()
        assert caught.value.code == "role_exists"


class TestPermissionsOfARole:
    def put(self, api: Api, token: str, role: str, *permissions: Any, **options: Any) -> Any:
        return asked(api, token, "PUT", f"/roles/{role}/permissions", {"permissions": permissions}, **options)

    def test_replaced_by_name_and_by_id(self, api: Api, rooms: Rooms):
        token = admin(api)
        role_id = make_role(rooms, "premium", "logs:read", "posts:create")
        answer = self.put(api, token, "premium", "posts:create", "users:read", "users:read")
        assert granted(answer)["permissions"] == ["posts:create", "users:read"]
        assert granted(asked(api, token, "GET", f"/roles/{role_id}")) == answer.json
        assert granted(self.put(api, token, str(role_id)))["permissions"] == []
        # A built-in one, too.
        assert granted(self.put(api, token, "user", "users:read"))["permissions"] == ["users:read"]

    def test_refused(self, api: Api, rooms: Rooms):
        token = admin(api)
        make_role(rooms, "premium", "logs:read")
        before = dump(rooms)
        for role in ("nobody", "Premium", NOBODY, "verify", "%00"):
            refused(self.put(api, token, role, "logs:read"), 404, "role_not_found")
        refused(self.put(api, token, "premium", "posts:read"), 422, "unknown_permission")
        for body in ({}, {"permissions": None}, {"permissions": [1]}, {"permissions": [], "name": "x"}, []):
            answer = asked(api, token, "PUT", "/roles/premium/permissions", body)
            assert answer.status_code == (422 if isinstance(body, dict) else 400)
        assert dump(rooms) == before

    def test_lost_update(self, apps: Apps, api_of: ApiOf):
        """RFC 9110 section 13.1.1: of two who saw the same version, one writes."""
        here, there = api_of(apps()), api_of(apps())
        token = admin(here)
        make_role(rooms_of(here.http.application), "premium")
        # What is there already is no other version, so that both could write it.
        for wanted in (
            (["logs:read", "users:read"], ["keys:read"]),
            (["posts:create"], ["users:read"]),
            (["logs:read"], ["logs:read", "keys:read"]),
        ):
            tag = asked(here, token, "GET", "/roles/premium").headers["ETag"]
            start = Barrier(2)

            def write(number: int, tag: str = tag, wanted: Any = wanted, start: Barrier = start) -> Any:
                start.wait()
                return self.put((here, there)[number], token, "premium", *wanted[number], match=tag)

            with ThreadPoolExecutor(2) as pool:
                answers = list(pool.map(write, (0, 1)))
            won, lost = sorted(answers, key=lambda answer: answer.status_code)
            refused(lost, 412, "precondition_failed")
            now = asked(here, token, "GET", "/roles/premium")
            assert granted(now) == granted(won)
            assert now.headers["ETag"] == won.headers["ETag"] != tag
        granted(self.put(here, token, "premium", match="*"))
        refused(self.put(here, token, "premium", match='W/"x"'), 412, "precondition_failed")


class TestDeleting:
    def test_delete(self, api: Api, rooms: Rooms):
        token = admin(api)
        user = api.register("ann")
        role_id = make_role(rooms, "premium", "logs:read")
        tag = asked(api, token, "GET", "/roles/premium").headers["ETag"]
        assign(rooms, user["id"], "premium")
        refused(asked(api, token, "DELETE", "/roles/premium"), 409, "role_in_use")
        # The tag of a role tells how many hold it.
        refused(asked(api, token, "DELETE", "/roles/premium", match=tag), 412, "precondition_failed")
        granted(asked(api, token, "PUT", f"/users/{user['id']}/roles", {"roles": []}))
        granted(asked(api, token, "DELETE", "/roles/premium", match=tag), 204)
        for spelling in ("premium", str(role_id)):
            refused(asked(api, token, "DELETE", f"/roles/{spelling}"), 404, "role_not_found")
        assert rooms.database.read(lambda tx: tx.get(RolePermission, (role_id, "logs:read"))) is None
        make_role(rooms, "other")
        granted(asked(api, token, "DELETE", f"/roles/{make_role(rooms, 'other2')}"), 204)

    def test_built_in_ones_stay(self, api: Api, rooms: Rooms):
        token = admin(api)
        before = dump(rooms)
        for role in BUILTIN_ROLES:
            refused(asked(api, token, "DELETE", f"/roles/{role}"), 409, "builtin_role")
        assert dump(rooms) == before

    def test_given_and_deleted_at_the_same_moment(self, apps: Apps, api_of: ApiOf):
        here, there = api_of(apps()), api_of(apps())
        rooms = rooms_of(here.http.application)
        token = admin(here)
        user = here.register("ann")["id"]
        for number in range(4):
            name = f"premium{number}"
            make_role(rooms, name)
            start = Barrier(2)

            def give(name: str = name, start: Barrier = start) -> Any:
                start.wait()
                return asked(here, token, "PUT", f"/users/{user}/roles", {"roles": [name]})

            def delete(name: str = name, start: Barrier = start) -> Any:
                start.wait()
                return asked(there, token, "DELETE", f"/roles/{name}")

            with ThreadPoolExecutor(2) as pool:
                given, deleted = (each.result() for each in (pool.submit(give), pool.submit(delete)))
            if deleted.status_code == 204:
                refused(given, 422, "unknown_role")
            else:
                refused(deleted, 409, "role_in_use")
                assert granted(given)["roles"] == [name]


class TestDryRun:
    """What a change of a role would do to whom; and nothing is changed."""

    def put(self, api: Api, token: str, role: str, *permissions: str) -> dict[str, Any]:
        body = {"permissions": permissions}
        return granted(asked(api, token, "PUT", f"/roles/{role}/permissions", body, dry_run="true"))

    def test_who_gains_and_loses_what(self, api: Api, rooms: Rooms):
        token = admin(api)
        make_role(rooms, "team", "posts:create", "logs:read")
        make_role(rooms, "reader", "logs:read", "users:list")
        ids = {}
        for name, held, sessions in (
            ("ann", ["team"], 2),
            ("bob", ["team", "reader"], 1),
            ("eve", ["team"], 1),
            ("joe", ["reader"], 1),
        ):
            ids[name] = api.register(name)["id"]
            granted(asked(api, token, "PUT", f"/users/{ids[name]}/roles", {"roles": held}))
            for _ in range(sessions):
                last = api.login(name)
            if name == "ann":
                assert api.http.post("/auth/logout", headers=bearer(last["access_token"])).status_code == 204
        granted(asked(api, token, "PUT", f"/users/{ids['eve']}/status", {"status": "disabled"}))
        before = dump(rooms)

        effect = self.put(api, token, "team", "posts:create", "users:list", "keys:read")
        assert effect == {
            "dry_run": True,
            "user_count": 2,
            "session_count": 2,
            "users": [
                {
                    "id": ids["ann"],
                    "username": "ann",
                    "gains": ["keys:read", "users:list"],
                    "loses": ["logs:read"],
                },
                {"id": ids["bob"], "username": "bob", "gains": ["keys:read"], "loses": []},
            ],
            "clients": [],
        }
        # Who holds it through another role too is not concerned.
        effect = self.put(api, token, "team", "posts:create")
        assert [user["username"] for user in effect["users"]] == ["ann"]
        assert (effect["user_count"], effect["session_count"]) == (1, 1)
        effect = self.put(api, token, "team", "posts:create", "logs:read", "users:list")
        assert [(user["username"], user["gains"]) for user in effect["users"]] == [("ann", ["users:list"])]
        nothing = {"dry_run": True, "user_count": 0, "session_count": 0, "users": [], "clients": []}
        assert self.put(api, token, "team", "logs:read", "posts:create") == nothing
        assert dump(rooms) == before

        body = {"name": "new", "permissions": ["logs:read"]}
        assert granted(asked(api, token, "POST", "/roles", body, dry_run="true")) == nothing
        make_role(rooms, "unused", "logs:read")
        before = dump(rooms)
        assert granted(asked(api, token, "DELETE", "/roles/unused", dry_run="true")) == nothing
        assert dump(rooms) == before

    def test_it_refuses_what_the_change_would_refuse(self, api: Api, rooms: Rooms):
        token = admin(api)
        before = dump(rooms)
        dry = {"dry_run": "true"}
        for answer, status, code in (
            (asked(api, token, "POST", "/roles", {"name": "user"}, **dry), 409, "role_exists"),
            (asked(api, token, "POST", "/roles", {"name": "a b"}, **dry), 422, "validation_failed"),
            (asked(api, token, "DELETE", "/roles/user", **dry), 409, "builtin_role"),
            (asked(api, token, "DELETE", "/roles/nobody", **dry), 404, "role_not_found"),
            (asked(api, token, "DELETE", "/roles/user", match='"x"', **dry), 412, "precondition_failed"),
            (asked(api, token, "DELETE", "/roles/user", dry_run="yes"), 422, "validation_failed"),
            (asked(api, token, "GET", "/roles", **dry), 422, "validation_failed"),
        ):
            refused(answer, status, code)
        assert dump(rooms) == before

    def test_many_users(self, api: Api, app: Flask, rooms: Rooms, queries: Callable[[Flask], Any]):
        """All are counted, the first hundred named, and it takes no more queries than for one."""
        token = admin(api)
        role_id = make_role(rooms, "team")
        self.put(api, token, "team")  # the caller is known from here on
        counts = []
        for count in (1, 130):
            people(rooms, role_id, count)
            with queries(app) as counter:
                effect = self.put(api, token, "team", "logs:read")
            counts.append(counter.count)
        assert counts[0] == counts[1]
        assert (effect["user_count"], len(effect["users"])) == (131, 100)
        assert effect["users"] == sorted(effect["users"], key=lambda user: user["username"])
        assert all(user["gains"] == ["logs:read"] for user in effect["users"])


def people(rooms: Rooms, role_id: UUID, count: int) -> None:
    """Users without a password that anybody knows."""

    def add(tx: Transaction) -> None:
        now = utc_now()
        for number in range(count):
            name = f"p{count}-{number:03}"
            user = User(
                id=uuid4(),
                username=name,
                username_key=name,
                email=f"{name}@example.org",
                email_key=f"{name}@example.org",
                password_hash="",
                created_at=now,
                updated_at=now,
            )
            tx.add(user)
            tx.flush()
            tx.add(RoleAssignment(user_id=user.id, role_id=role_id, granted_by="test", granted_at=now))

    rooms.database.write(add)


def test_a_role_from_before_names_were_compared(api: Api, rooms: Rooms):
    """Its `name_key` may be missing; its name is taken all the same."""
    token = admin(api)
    rooms.database.write(lambda tx: tx.add(Role(name="old", created_at=utc_now())))
    refused(asked(api, token, "POST", "/roles", {"name": "old"}), 409, "role_exists")
