"""`/users/{user_id}/sessions`: somebody's sessions, for those who may change users."""

from typing import Any

from tests.access.story import NOBODY, admin, asked, dump, events, holding, user_id_of
from tests.answers import granted, refused
from tests.conftest import Api, bearer
from tokenserver.rooms import Rooms


def listed(api: Api, token: str, user_id: Any, **query: Any) -> Any:
    return asked(api, token, "GET", f"/users/{user_id}/sessions", **query)


def ended(api: Api, token: str, user_id: Any, session_id: str = "", **query: Any) -> Any:
    return asked(api, token, "DELETE", f"/users/{user_id}/sessions{session_id and '/'}{session_id}", **query)


def test_they_are_listed_in_pages(api: Api):
    user = api.register("ann")
    for _ in range(3):
        api.login("ann")
    token = admin(api)
    first = granted(listed(api, token, user["id"], limit=2))
    rest = granted(listed(api, token, user["id"], limit=2, cursor=first["next_cursor"]))
    assert rest["next_cursor"] is None
    found = first["items"] + rest["items"]
    assert len({session["id"] for session in found}) == 3
    assert [session["created_at"] for session in found] == sorted((s["created_at"] for s in found), reverse=True)
    assert not any(session["current"] for session in found)
    own = granted(listed(api, token, user_id_of_admin(api, token)))["items"]
    assert [session["current"] for session in own] == [True]
    refused(listed(api, token, own[0]["id"], cursor=first["next_cursor"]), 404, "user_not_found")
    refused(listed(api, token, user_id_of_admin(api, token), cursor=first["next_cursor"]), 422, "validation_failed")


def user_id_of_admin(api: Api, token: str) -> str:
    return str(granted(api.me(token))["id"])


def test_one_ends_and_the_others_stay(api: Api, rooms: Rooms):
    user = api.register("ann")
    one, other = api.login("ann"), api.login("ann")
    token = admin(api)
    newest = granted(listed(api, token, user["id"]))["items"][0]
    before = dump(rooms)
    assert granted(ended(api, token, user["id"], newest["id"], dry_run="true"))["session_count"] == 1
    assert dump(rooms) == before
    assert ended(api, token, user["id"], newest["id"]).status_code == 204
    refused(api.me(other["access_token"]), 401, "invalid_token")
    refused(api.refresh(other["refresh_token"]), 401, "invalid_refresh_token")
    granted(api.me(one["access_token"]))
    assert events(rooms, "session:ended", newest["id"]) == [("session:ended", {})]
    refused(ended(api, token, user["id"], newest["id"]), 404, "session_not_found")


def test_all_end(api: Api):
    user = api.register("ann")
    tokens = [api.login("ann")["access_token"] for _ in range(2)]
    token = admin(api)
    assert granted(ended(api, token, user["id"], dry_run="true"))["session_count"] == 2
    assert ended(api, token, user["id"]).status_code == 204
    for each in tokens:
        refused(api.me(each), 401, "invalid_token")
    granted(api.me(token))
    assert granted(listed(api, token, user["id"]))["items"] == []


def test_what_is_refused(api: Api, rooms: Rooms):
    user, other = api.register("ann"), api.register("bob")
    api.login("ann")
    token = admin(api)
    (session,) = granted(listed(api, token, user["id"]))["items"]
    refused(ended(api, token, other["id"], session["id"]), 404, "session_not_found")
    refused(ended(api, token, NOBODY), 404, "user_not_found")
    refused(ended(api, token, NOBODY, session["id"]), 404, "user_not_found")
    # Who reads users doesn't learn where they sign in from; who can't manage roles doesn't end who can.
    reader = holding(api, rooms, "reader", "users:read", "users:list")
    refused(listed(api, reader, user["id"]), 403, "insufficient_scope")
    writer = holding(api, rooms, "writer", "users:write")
    granted(listed(api, writer, user_id_of(rooms)))
    refused(ended(api, writer, user_id_of(rooms)), 403, "exceeds_own_permissions")
    refused(ended(api, writer, user_id_of(rooms), session["id"]), 403, "exceeds_own_permissions")
    granted(api.http.get("/users/me", headers=bearer(token)))
    assert ended(api, writer, user["id"]).status_code == 204
