"""`GET /admin/explain`: every answer has a reason."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from flask import Flask

from tests.access.story import NOBODY, admin, asked, assign, dump, make_role, user_id_of
from tests.answers import granted, refused
from tests.conftest import Api
from tokenserver.access.permissions import PERMISSIONS
from tokenserver.posts.models import Post
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import Transaction, new_id, utc_now


def explain(api: Api, token: str, user: str, permission: str, **query: str) -> Any:
    return asked(api, token, "GET", "/admin/explain", user=user, permission=permission, **query)


def write_post(rooms: Rooms, author: UUID | str) -> UUID:
    post_id = new_id()

    def add(tx: Transaction) -> None:
        post = Post(
            id=post_id, author_id=UUID(str(author)), title="x", body="x", public=False, created_at=utc_now()
        )
        tx.add(post)

    rooms.database.write(add)
    return post_id


def test_granted_through_which_role_by_whom_and_when(api: Api, rooms: Rooms):
    token, admin_id = admin(api), user_id_of(rooms)
    user = api.register("ann")
    role_id = make_role(rooms, "author", "posts:create", "logs:read")
    granted(asked(api, token, "PUT", f"/users/{user['id']}/roles", {"roles": ["user", "author"]}))
    answer = granted(explain(api, token, "ann", "posts:create"))
    first, second = answer.pop("grants")
    assert answer == {
        "user": {"id": user["id"], "username": "ann", "status": "active"},
        "permission": "posts:create",
        "resource": None,
        "decision": "allow",
        "reason": "granted",
        "nearest": [],
    }
    assert (first["role"], first["granted_by"], first["granted_by_name"]) == ("user", "registration", None)
    granted_at = datetime.fromisoformat(second.pop("granted_at"))
    assert timedelta(0) <= datetime.now(UTC) - granted_at < timedelta(minutes=1)
    assert second == {
        "role": "author",
        "role_id": str(role_id),
        "granted_by": str(admin_id),
        "granted_by_name": "admin",
    }
    # The other role doesn't grant this one.
    assert [grant["role"] for grant in granted(explain(api, token, "ann", "logs:read"))["grants"]] == ["author"]
    for spelling in ("ANN", "ａｎｎ", "Ann@Example.org", user["id"], user["id"].upper()):
        assert granted(explain(api, token, spelling, "posts:create"))["user"]["username"] == "ann"
    by_start = granted(explain(api, token, "admin", "keys:write"))["grants"]
    assert [grant["granted_by"] for grant in by_start] == ["first start"]


def test_not_granted_and_what_would_be_the_least(api: Api, rooms: Rooms):
    token = admin(api)
    api.register("ann")
    make_role(rooms, "wide", "logs:read", "users:read", "users:list", "posts:create")
    make_role(rooms, "narrow2", "logs:read")
    make_role(rooms, "narrow1", "logs:read", "posts:create")  # which ann holds already
    make_role(rooms, "none", "users:read")
    answer = granted(explain(api, token, "ann", "logs:read"))
    assert (answer["decision"], answer["reason"], answer["grants"]) == ("deny", "not_granted", [])
    assert [(each["role"], each["adds"]) for each in answer["nearest"]] == [
        ("narrow1", ["logs:read"]),
        ("narrow2", ["logs:read"]),
        ("wide", ["logs:read", "users:list", "users:read"]),
    ]
    only_admin = granted(explain(api, token, "ann", "keys:write"))["nearest"]
    assert [(each["role"], each["adds"]) for each in only_admin] == [
        ("admin", sorted(set(PERMISSIONS) - {"posts:create"}))
    ]
    # Somebody who holds nothing at all, and a permission that no role has.
    granted(asked(api, token, "PUT", f"/users/{user_id_of(rooms, 'ann')}/roles", {"roles": []}))
    nearest = granted(explain(api, token, "ann", "posts:create"))["nearest"]
    assert [each["role"] for each in nearest] == ["user", "narrow1", "moderator"]
    granted(
        asked(
            api, token, "PUT", "/roles/admin/permissions", {"permissions": sorted(set(PERMISSIONS) - {"keys:read"})}
        )
    )
    assert granted(explain(api, token, "ann", "keys:read"))["nearest"] == []


def test_disabled(api: Api, rooms: Rooms):
    token = admin(api)
    user = api.register("ann")
    granted(asked(api, token, "PUT", f"/users/{user['id']}/status", {"status": "disabled"}))
    for permission, roles in (("posts:create", ["user"]), ("logs:read", [])):
        answer = granted(explain(api, token, "ann", permission))
        assert (answer["decision"], answer["reason"]) == ("deny", "user_disabled")
        assert answer["user"]["status"] == "disabled"
        # What they would have again, if they were enabled.
        assert [grant["role"] for grant in answer["grants"]] == roles
        assert answer["nearest"] == []
    mine = write_post(rooms, user["id"])
    answer = granted(explain(api, token, "ann", "posts:delete:any", resource=f"/posts/{mine}"))
    assert (answer["decision"], answer["reason"]) == ("deny", "user_disabled")


def test_owner(api: Api, rooms: Rooms):
    token = admin(api)
    user = api.register("ann")
    mine, other = write_post(rooms, user["id"]), write_post(rooms, user_id_of(rooms))

    def reason(post: UUID, permission: str = "posts:delete:any", who: str = "ann") -> tuple[str, str]:
        path = f"/posts/{post}"
        answer = granted(explain(api, token, who, permission, resource=path))
        assert answer["resource"] == path
        return answer["decision"], answer["reason"]

    assert reason(mine) == ("allow", "owner")
    assert reason(other) == ("deny", "not_granted")
    # Owning a post is no reason for anything else.
    assert reason(mine, "logs:read") == ("deny", "not_granted")
    assert reason(mine, "posts:create") == ("allow", "granted")
    assert reason(mine, who="admin") == ("allow", "granted")
    assert granted(explain(api, token, "ann", "posts:delete:any"))["reason"] == "not_granted"


def test_refused(api: Api, rooms: Rooms):
    token = admin(api)
    api.register("ann")
    before = dump(rooms)
    for user in ("nobody", NOBODY, "", "x" * 300, "ann@", "%"):
        refused(explain(api, token, user, "posts:create"), 404, "user_not_found")
    for permission in ("posts:read", "", "POSTS:CREATE", "*"):
        refused(explain(api, token, "ann", permission), 422, "unknown_permission")
    unknown = f"/posts/{NOBODY}"
    refused(explain(api, token, "ann", "posts:delete:any", resource=unknown), 404, "resource_not_found")
    for resource in ("", "/posts", "/posts/x", NOBODY, f"posts/{NOBODY}", f"{unknown}/", f"/users/{NOBODY}"):
        errors = refused(explain(api, token, "ann", "posts:create", resource=resource), 422, "validation_failed")
        assert [error["field"] for error in errors.json["errors"]] == ["resource"]
    refused(asked(api, token, "GET", "/admin/explain"), 422, "validation_failed")
    refused(explain(api, token, "ann", "posts:create", x="1"), 422, "validation_failed")
    refused(explain(api, token, "a\0", "posts:create"), 400, "malformed_request")
    assert dump(rooms) == before


def test_number_of_queries_is_constant(app: Flask, api: Api, rooms: Rooms, queries: Callable[[Flask], Any]):
    token = admin(api)
    user = api.register("ann")
    granted(explain(api, token, "ann", "logs:read"))  # the caller is known from here on
    counts = []
    for roles in (1, 20):
        for number in range(roles):
            name = f"role{roles}-{number}"
            make_role(rooms, name, "logs:read", "users:list")
            assign(rooms, user["id"], name, granted_by=str(user_id_of(rooms)))
        with queries(app) as counter:
            granted(explain(api, token, "ann", "logs:read"))
        counts.append(counter.count)
    assert counts[0] == counts[1]
