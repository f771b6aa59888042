"""`/users`: everybody's accounts, for those who may see and change them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import insert

from tests.access.story import (
    NOBODY,
    admin,
    asked,
    assign,
    dump,
    events,
    feed_entries,
    holding,
    make_role,
    user_id_of,
)
from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api, Apps, bearer
from tokenserver.access.models import Role, RoleAssignment, RolePermission
from tokenserver.app import rooms_of
from tokenserver.identity.models import User
from tokenserver.identity.names import displayed, folded
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import Transaction, new_id, utc_now

ApiOf = Callable[[Flask], Api]
MANY = 9_000


def names(page: dict[str, Any]) -> list[str]:
    return [user["username"] for user in page["items"]]


def put_roles(api: Api, token: str, user_id: Any, roles: Any, **options: Any) -> Any:
    return asked(api, token, "PUT", f"/users/{user_id}/roles", {"roles": roles}, **options)


def put_status(api: Api, token: str, user_id: Any, status: Any, **options: Any) -> Any:
    return asked(api, token, "PUT", f"/users/{user_id}/status", {"status": status}, **options)


class TestReading:
    def test_one(self, api: Api, rooms: Rooms):
        user = api.register("ann")
        make_role(rooms, "auditor", "logs:read")
        assign(rooms, user["id"], "auditor")
        answer = asked(api, admin(api), "GET", f"/users/{user['id']}")
        token = api.login("ann")["access_token"]
        assert granted(answer) == granted(api.me(token))
        assert answer.json["roles"] == ["auditor", "user"]
        assert answer.json["permissions"] == ["logs:read", "posts:create"]
        assert answer.headers["ETag"]

    def test_list_shows_what_users_see_of_themselves(self, api: Api, rooms: Rooms):
        api.register("bob")
        api.register("ann")
        assign(rooms, user_id_of(rooms, "ann"), "moderator")
        listed = granted(asked(api, admin(api), "GET", "/users"))
        assert names(listed) == ["admin", "ann", "bob"]
        for user in listed["items"][1:]:
            token = api.login(user["username"])["access_token"]
            assert granted(api.me(token)) == user

    def test_one_s_own_id_opens_no_door(self, api: Api, rooms: Rooms):
        """IDOR: without the permission, nobody's account is there, one's own neither."""
        ann, bob = api.register("ann"), api.register("bob")
        token = api.login("ann")["access_token"]
        for user_id in (ann["id"], bob["id"], NOBODY, str(user_id_of(rooms))):
            for method, path, body in (
                ("GET", "", None),
                ("PUT", "/roles", {"roles": ["admin"]}),
                ("PUT", "/status", {"status": "disabled"}),
            ):
                refused(asked(api, token, method, f"/users/{user_id}{path}", body), 403, "insufficient_scope")
                answer = api.http.open(f"/users/{user_id}{path}", method=method, json=body)
                refused(answer, 401, "authentication_required")
        refused(asked(api, token, "GET", "/users"), 403, "insufficient_scope")
        refused(api.http.get("/users"), 401, "authentication_required")
        assert rooms.rights.of(UUID(ann["id"])).roles == ("user",)

    def test_each_right_is_its_own(self, api: Api, rooms: Rooms):
        user = api.register("ann")
        calls = {
            "users:list": ("GET", "/users", None),
            "users:read": ("GET", f"/users/{user['id']}", None),
            "users:write": ("PUT", f"/users/{user['id']}/status", {"status": "active"}),
            "roles:assign": ("PUT", f"/users/{user['id']}/roles", {"roles": ["user"]}),
        }
        for held in calls:
            token = holding(api, rooms, f"has.{held.replace(':', '.')}", held)
            for needed, call in calls.items():
                answer = asked(api, token, *call)
                assert answer.status_code == (200 if needed == held else 403), (held, needed)

    def test_unknown(self, api: Api):
        token = admin(api)
        refused(asked(api, token, "GET", f"/users/{NOBODY}"), 404, "user_not_found")
        refused(put_roles(api, token, NOBODY, ["user"]), 404, "user_not_found")
        refused(put_status(api, token, NOBODY, "disabled"), 404, "user_not_found")
        for spelling in (NOBODY.replace("-", ""), "ann", "1", "..%2fme", "%00"):
            assert asked(api, token, "GET", f"/users/{spelling}").status_code == 404


class TestList:
    @pytest.fixture
    def token(self, api: Api, rooms: Rooms) -> str:
        people = (
            ("ann", "ann@example.org", "Ånn Größe"),
            ("bob", "rob@example.net", "50% off"),
            ("b_b", "b.b@example.org", "a/b\\c"),
            ("bxb", "bxb@example.org", None),
            ("zoe", "zoë@example.org", "ﬁne Zoë"),
        )
        template = rooms.people.prepare(username="x1", email="x@example.org", password=PASSWORD)

        def add(tx: Transaction) -> None:
            for username, email, name in people:
                values = {c.name: getattr(template, c.name) for c in User.__table__.columns}
                values |= {
                    "id": new_id(),
                    "username": username,
                    "username_key": username,
                    "email": displayed(email),
                    "email_key": folded(email),
                    "name": name,
                    "name_key": folded(name) if name else None,
                    "status": "disabled" if username == "bob" else "active",
                }
                tx.add(User(**values))

        rooms.database.write(add)
        return admin(api)

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("", ["admin", "ann", "b_b", "bob", "bxb", "zoe"]),
            ("  ", ["admin", "ann", "b_b", "bob", "bxb", "zoe"]),
            ("b_b", ["b_b"]),
            ("_", ["b_b"]),
            ("%", ["bob"]),
            ("50% OFF", ["bob"]),
            ("/", ["b_b"]),
            ("\\", ["b_b"]),
            ("EXAMPLE.org", ["ann", "b_b", "bxb", "zoe"]),
            ("rob@", ["bob"]),
            ("groesse", []),
            ("GRÖSSE", ["ann"]),
            ("größe", ["ann"]),
            ("ａｎｎ", ["ann"]),
            ("ånn", ["ann"]),
            ("A\u030ann", ["ann"]),
            ("FINE", ["zoe"]),
            ("ZOË", ["zoe"]),
            ("nobody", []),
            ("' OR 1=1 --", []),
            ("*", []),
        ],
    )
    def test_search(self, api: Api, token: str, text: str, found: list[str]):
        assert names(granted(asked(api, token, "GET", "/users", q=text))) == found

    def test_status(self, api: Api, token: str):
        assert names(granted(asked(api, token, "GET", "/users", status="disabled"))) == ["bob"]
        active = granted(asked(api, token, "GET", "/users", status="active", q="b"))
        assert names(active) == ["b_b", "bxb"]
        for query in ({"status": "gone"}, {"status": ""}, {"q": "x" * 255}, {"role": "admin"}, {"limit": 0}):
            errors = refused(asked(api, token, "GET", "/users", **query), 422, "validation_failed").json["errors"]
            assert [error["field"] for error in errors] == list(query)
        refused(asked(api, token, "GET", "/users", q="a\0"), 400, "malformed_request")

    def test_pages(self, api: Api, token: str):
        everything = granted(asked(api, token, "GET", "/users"))["items"]
        for limit in (1, 2, 4, 6):
            seen: list[Any] = []
            query: dict[str, Any] = {"limit": limit}
            while True:
                page = granted(asked(api, token, "GET", "/users", **query))
                seen += page["items"]
                if page["next_cursor"] is None:
                    break
                query["cursor"] = page["next_cursor"]
            assert seen == everything
        # A cursor belongs to its list and its filters.
        cursor = granted(asked(api, token, "GET", "/users", q="b", limit=1))["next_cursor"]
        assert names(granted(asked(api, token, "GET", "/users", q="b", cursor=cursor))) == ["bob", "bxb"]
        for other in ({}, {"q": "bo"}, {"q": "b", "status": "active"}):
            refused(asked(api, token, "GET", "/users", cursor=cursor, **other), 422, "validation_failed")
        refused(asked(api, token, "GET", "/roles", cursor=cursor), 422, "validation_failed")


class TestRoles:
    def test_replaced(self, api: Api, rooms: Rooms):
        token, mine = admin(api), user_id_of(rooms)
        user = api.register("ann")
        make_role(rooms, "Premium", "logs:read")
        answer = put_roles(api, token, user["id"], ["Premium", "user", "Premium"])
        assert granted(answer) == user | {
            "roles": ["Premium", "user"],
            "permissions": ["logs:read", "posts:create"],
        }
        read = asked(api, token, "GET", f"/users/{user['id']}")
        assert (read.json, read.headers["ETag"]) == (answer.json, answer.headers["ETag"])

        def grants(role: str) -> Any:
            key = (UUID(user["id"]), rooms.database.read(lambda tx: tx.query(Role).filter_by(name=role).one().id))
            row = rooms.database.read(lambda tx: tx.get(RoleAssignment, key))
            return row and (row.granted_by, row.granted_at)

        # What stays is still granted by whom and when it was.
        by, at = grants("Premium")
        assert by == str(mine)
        assert grants("user")[0] == "registration"
        granted(put_roles(api, token, user["id"], ["Premium"]))
        assert (grants("Premium"), grants("user")) == ((by, at), None)
        assert granted(put_roles(api, token, user["id"], []))["permissions"] == []

    def test_refused(self, api: Api, rooms: Rooms):
        token = admin(api)
        user = api.register("ann")
        before = dump(rooms)
        roles = ["user", "nobody", "User", "", "user ", "ｕｓｅｒ", "' OR 1=1 --", NOBODY]
        errors = refused(put_roles(api, token, user["id"], roles), 422, "unknown_role").json["errors"]
        assert [error["field"] for error in errors] == [f"roles.{i}" for i in range(1, 8)]
        many = refused(put_roles(api, token, user["id"], ["x"] * 5000), 422, "unknown_role").json["errors"]
        assert len(many) == 20
        for body in (
            {},
            {"roles": None},
            {"roles": "user"},
            {"roles": [1]},
            {"roles": [None]},
            {"roles": ["x" * 65]},
            {"roles": ["x"] * 10_001},
            {"roles": ["user"], "status": "active"},
        ):
            path = f"/users/{user['id']}/roles"
            refused(asked(api, token, "PUT", path, body), 422, "validation_failed")
        refused(put_roles(api, token, user["id"], ["a\0"]), 400, "malformed_request")
        refused(put_roles(api, token, user["id"], ["x" * 60] * 1200), 413, "body_too_large")
        assert dump(rooms) == before

    def test_lost_update(self, apps: Apps, api_of: ApiOf):
        """RFC 9110 section 13.1.1: of two who saw the same version, one writes; the other one reads again."""
        here, there = api_of(apps()), api_of(apps())
        rooms = rooms_of(here.http.application)
        token = admin(here)
        user = here.register("ann")
        path = f"/users/{user['id']}"
        for number in range(3):
            for name in ("left", "right"):
                make_role(rooms, f"{name}{number}")
            tag = asked(here, token, "GET", path).headers["ETag"]
            start = Barrier(2)

            def write(which: int, number: int = number, tag: str = tag, start: Barrier = start) -> Any:
                roles = ["user", f"{('left', 'right')[which]}{number}"]
                start.wait()
                return put_roles((here, there)[which], token, user["id"], roles, match=tag)

            with ThreadPoolExecutor(2) as pool:
                answers = list(pool.map(write, (0, 1)))
            won, lost = sorted(answers, key=lambda answer: answer.status_code)
            refused(lost, 412, "precondition_failed")
            now = asked(there, token, "GET", path)
            assert granted(now) == granted(won)
            assert now.headers["ETag"] == won.headers["ETag"] != tag
        refused(put_roles(here, token, user["id"], [], match='"x"'), 412, "precondition_failed")
        tag = put_status(here, token, user["id"], "disabled", match=now.headers["ETag"]).headers["ETag"]
        refused(
            put_status(here, token, user["id"], "active", match=now.headers["ETag"]), 412, "precondition_failed"
        )
        granted(put_status(here, token, user["id"], "active", match=tag))

    def test_two_of_the_same_at_once(self, apps: Apps, api_of: ApiOf):
        """Each role is given once, and recorded once."""
        here, there = api_of(apps()), api_of(apps())
        rooms = rooms_of(here.http.application)
        token = admin(here)
        user = here.register("ann")
        start = Barrier(4)

        def give(number: int) -> Any:
            start.wait()
            return put_roles((here, there)[number % 2], token, user["id"], ["user", "moderator"])

        with ThreadPoolExecutor(4) as pool:
            for answer in pool.map(give, range(4)):
                assert granted(answer)["roles"] == ["moderator", "user"]
        assert len(events(rooms, "role:assigned", user["id"])) == 2


class TestStatus:
    def test_disabled_is_out_at_once_and_may_come_back(self, apps: Apps, api_of: ApiOf):
        here, there = api_of(apps()), api_of(apps())
        rooms = rooms_of(here.http.application)
        token = admin(here)
        user = here.register("ann")
        first, second = here.login("ann"), there.login("ann")
        bob = here.signed_in("bob")
        for api, tokens in ((there, first), (here, second)):
            granted(api.me(tokens["access_token"]))
        disabled = granted(put_status(here, token, user["id"], "disabled"))
        assert disabled == user | {"status": "disabled", "updated_at": disabled["updated_at"]}
        assert disabled["updated_at"] > user["updated_at"]
        for api in (there, here):
            for tokens in (first, second):
                refused(api.me(tokens["access_token"]), 401, "invalid_token")
                refused(api.refresh(tokens["refresh_token"]), 401, "invalid_refresh_token")
            granted(api.me(bob["access_token"]))
        body = {"login": "ann", "password": PASSWORD}
        refused(there.http.post("/auth/login", json=body), 403, "account_disabled")
        assert rooms.sessions.live(UUID(user["id"]), limit=10) == []
        assert granted(put_status(there, token, user["id"], "active"))["status"] == "active"
        refused(here.me(first["access_token"]), 401, "invalid_token")
        granted(here.me(there.login("ann")["access_token"]))
        kinds = [event for event, _ in events(rooms, "user:", user["id"])]
        assert kinds == ["user:created", "user:disabled", "user:enabled"]

    def test_wrong_fields(self, api: Api, rooms: Rooms):
        token = admin(api)
        user = api.register("ann")
        before = dump(rooms)
        for body in (
            {},
            {"status": "Disabled"},
            {"status": None},
            {"status": True},
            {"status": "deleted"},
            {"status": "active", "roles": []},
        ):
            refused(asked(api, token, "PUT", f"/users/{user['id']}/status", body), 422, "validation_failed")
        assert dump(rooms) == before


class TestDryRun:
    def test_roles(self, api: Api, rooms: Rooms):
        token = admin(api)
        user = api.register("ann")
        make_role(rooms, "same", "posts:create")
        for _ in range(3):
            last = api.login("ann")
        assert api.http.post("/auth/logout", headers=bearer(last["access_token"])).status_code == 204
        before = dump(rooms)

        def would(*roles: str) -> dict[str, Any]:
            return granted(put_roles(api, token, user["id"], roles, dry_run="true"))

        concerned = {"id": user["id"], "username": "ann"}
        nothing = {"dry_run": True, "user_count": 0, "session_count": 0, "users": [], "clients": []}
        assert would("moderator") == nothing | {
            "user_count": 1,
            "session_count": 2,
            "users": [concerned | {"gains": ["posts:delete:any", "users:read"], "loses": []}],
        }
        assert would()["users"] == [concerned | {"gains": [], "loses": ["posts:create"]}]
        assert would("user") == nothing
        # Another role, and nothing more or less that may be done.
        assert would("user", "same") == nothing
        refused(put_roles(api, token, user["id"], ["nobody"], dry_run="true"), 422, "unknown_role")
        assert dump(rooms) == before
        assert rooms.rights.of(UUID(user["id"])).roles == ("user",)

    def test_status(self, api: Api, rooms: Rooms):
        token = admin(api)
        user = api.register("ann")
        tokens = [api.login("ann") for _ in range(2)]
        before = dump(rooms)
        answer = granted(put_status(api, token, user["id"], "disabled", dry_run="true"))
        assert answer == {
            "dry_run": True,
            "user_count": 1,
            "session_count": 2,
            "users": [{"id": user["id"], "username": "ann", "gains": [], "loses": ["posts:create"]}],
            "clients": [],
        }
        assert granted(put_status(api, token, user["id"], "active", dry_run="true"))["user_count"] == 0
        assert dump(rooms) == before
        for each in tokens:
            granted(api.me(each["access_token"]))
        granted(put_status(api, token, user["id"], "disabled"))
        # Of who is disabled, rights change nothing until they are enabled again.
        assert granted(put_roles(api, token, user["id"], ["moderator"], dry_run="true"))["user_count"] == 0
        enabled = granted(put_status(api, token, user["id"], "active", dry_run="true"))
        assert (enabled["users"][0]["gains"], enabled["session_count"]) == (["posts:create"], 0)


def role_names(count: int) -> list[str]:
    """Short enough for 9,000 of them in one body."""
    return [f"{number:04}" for number in range(count)]


def test_number_of_queries_is_the_same_with_9000_roles(
    app: Flask, api: Api, rooms: Rooms, queries: Callable[[Flask], Any]
):
    token = admin(api)
    user = api.register("ann")
    mine = api.login("ann")["access_token"]
    names = role_names(MANY)

    def create(tx: Transaction) -> None:
        now = utc_now()
        rows = [{"id": new_id(), "name": name, "name_key": name, "created_at": now} for name in names]
        tx.execute(insert(Role), [row | {"description": "", "builtin": False} for row in rows])
        tx.execute(insert(RolePermission), [{"role_id": row["id"], "permission": "posts:create"} for row in rows])

    rooms.database.write(create)

    def costs(few: int) -> list[int]:
        counted = []
        for request in (
            lambda: put_roles(api, token, user["id"], names[:few]),
            lambda: api.me(mine),
            lambda: asked(api, token, "GET", f"/users/{user['id']}"),
            lambda: asked(api, token, "GET", "/users"),
            lambda: put_roles(api, token, user["id"], names[:few]),
        ):
            with queries(app) as counter:
                answer = granted(request())
            counted.append(counter.count)
            roles = (answer["items"][1] if "items" in answer else answer)["roles"]
            assert len(roles) == few
        return counted

    costs(1)  # the caller is known from here on
    few, many = costs(10), costs(MANY)
    assert few[1:] == many[1:]
    # Rows are written a thousand at a time: assignments and events.
    assert 0 <= many[0] - few[0] <= 2 * MANY // 1000
    assert len(events(rooms, "role:assigned", user["id"])) == 1 + MANY
    assert feed_entries(rooms, "user_changed").count(user["id"]) == 4


# Each is "bob" to who compares names.
SPELLINGS = ("bob", "BOB", "Bob", "ｂｏｂ", "ＢＯＢ", "ᵇᵒᵇ", "ⓑⓞⓑ", "𝐛𝐨𝐛", "𝕭𝕺𝕭", " bob ")


def test_50_registrations_of_one_name_at_once(apps: Apps, api_of: ApiOf):
    """One account, and 49 times 409."""
    made = [apps(threads=64) for _ in range(2)]
    start = Barrier(50)

    def register(number: int) -> Any:
        api = api_of(made[number % 2])
        body = {
            "username": SPELLINGS[number % len(SPELLINGS)],
            "email": f"bob{number}@example.org",
            "password": PASSWORD,
        }
        start.wait()
        while True:
            answer = api.http.post("/auth/register", json=body)
            if answer.status_code != 503:  # the queue of the password hashes
                return answer

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(register, range(50)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 49
    for answer in answers:
        if answer.status_code == 409:
            refused(answer, 409, "username_taken")
    found = rooms_of(made[0]).people.list()
    assert [user.username for user in found if user.username != "admin"] == ["bob"]
