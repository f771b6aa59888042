"""`/users/me`: one's own account and sessions."""

import base64
from collections.abc import Callable
from datetime import datetime
from typing import Any

from flask import Flask

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api, Apps, bearer
from tokenserver.rooms import Rooms

NEW_PASSWORD = "another horse 8 battery"


def put(api: Api, token: str, body: dict[str, Any]) -> Any:
    return api.http.put("/users/me", json=body, headers=bearer(token))


def sessions(api: Api, token: str, **query: str | int) -> Any:
    return api.http.get("/users/me/sessions", query_string=query, headers=bearer(token))


def end(api: Api, token: str, session_id: str) -> Any:
    return api.http.delete(f"/users/me/sessions/{session_id}", headers=bearer(token))


class TestProfile:
    def test_read(self, api: Api):
        user = api.register()
        token = api.login()["access_token"]
        assert granted(api.me(token)) == user
        assert "password" not in str(user)

    def test_name_is_changed_and_removed(self, api: Api):
        token = api.signed_in()["access_token"]
        for name in ("Ann", "Ånn 安", "x" * 200, None):
            assert granted(put(api, token, {"name": name}))["name"] == name
            assert granted(api.me(token))["name"] == name

    def test_user_name_and_address_are_changed_with_the_password(self, api: Api):
        """OWASP ASVS 7.5.1."""
        user = api.register()
        token = api.login()["access_token"]
        for change in ({"username": "anna"}, {"email": "anna@example.org"}, {"username": "anna", "name": "x"}):
            refused(put(api, token, change), 403, "reauthentication_required")
            wrong = {**change, "current_password": "wrong horse"}
            refused(put(api, token, wrong), 403, "invalid_credentials")
        assert granted(api.me(token)) == user  # and not a field of the mixed one was changed
        both = {"username": "Anna", "email": "Anna@example.org", "current_password": PASSWORD}
        changed = granted(put(api, token, both))
        assert (changed["username"], changed["email"]) == ("anna", "Anna@example.org")
        assert changed["updated_at"] > user["updated_at"]
        assert granted(api.me(token)) == changed
        for login in ("anna", "anna@example.org"):
            api.login(login)
        for login in ("ann", "ann@example.org"):
            body = {"login": login, "password": PASSWORD}
            refused(api.http.post("/auth/login", json=body), 401, "invalid_credentials")

    def test_what_stays_the_same_needs_no_password(self, api: Api):
        user = api.register()
        token = api.login()["access_token"]
        for body in ({}, {"username": "ANN"}, {"email": "ann@example.org"}, {"name": None}):
            assert granted(put(api, token, body)) == user

    def test_taken_names(self, api: Api):
        api.register("bob")
        token = api.signed_in()["access_token"]
        for change, code in (
            ({"username": "bob"}, "username_taken"),
            ({"username": "ＢＯＢ"}, "username_taken"),
            ({"email": "BOB@example.org"}, "email_taken"),
        ):
            refused(put(api, token, {**change, "current_password": PASSWORD}), 409, code)
        assert granted(api.me(token))["username"] == "ann"

    def test_wrong_fields(self, api: Api):
        token = api.signed_in()["access_token"]
        for field, value in (
            *(("username", value) for value in ("", "a", "a b", None, 1, "ann@x")),
            *(("email", value) for value in ("", "ann", None, [])),
            *(("name", value) for value in ("", "x" * 201, "a\rb", 1)),
            *(("password", value) for value in ("", "short", "ann@example.org", None, 1)),
            *(("current_password", value) for value in (None, 1, "x" * 1025)),
        ):
            body = {"current_password": PASSWORD, field: value}
            errors = refused(put(api, token, body), 422, "validation_failed").json["errors"]
            assert [error["field"] for error in errors] == [field], (field, value)

    def test_nobody_makes_themself_an_admin(self, api: Api):
        """Mass assignment, OWASP ASVS 8.2.3."""
        user = api.register()
        token = api.login()["access_token"]
        for field in (
            "roles",
            "permissions",
            "status",
            "id",
            "created_at",
            "password_hash",
            "username_key",
            "scope",
        ):
            body = {"name": "x", "current_password": PASSWORD, field: ["admin"]}
            errors = refused(put(api, token, body), 422, "validation_failed").json["errors"]
            assert [error["field"] for error in errors] == [field]
        assert granted(api.me(token)) == user

    def test_client_has_no_profile(self, api: Api, confidential: tuple[str, str]):
        own = granted(api.token(confidential, grant_type="client_credentials"))["access_token"]
        refused(api.me(own), 403, "user_required")
        refused(put(api, own, {"name": "x"}), 403, "user_required")
        refused(sessions(api, own), 403, "user_required")
        refused(end(api, own, "00000000-0000-0000-0000-000000000000"), 403, "user_required")

    def test_change_is_seen_by_every_process_at_once(self, apps: Apps, api_of: Callable[[Flask], Api]):
        here, there = api_of(apps()), api_of(apps())
        token = here.signed_in()["access_token"]
        assert granted(there.me(token))["name"] is None
        granted(put(here, token, {"name": "Ann"}))
        assert granted(there.me(token))["name"] == "Ann"


class TestPassword:
    def test_new_one_needs_the_old_one_and_ends_the_other_sessions(
        self, apps: Apps, api_of: Callable[[Flask], Api]
    ):
        """OWASP ASVS 6.2.3, 7.4.3."""
        here, there = api_of(apps()), api_of(apps())
        mine, other = here.signed_in(), here.login()
        bob = here.signed_in("bob")
        granted(there.me(other["access_token"]))
        token = mine["access_token"]
        refused(put(here, token, {"password": NEW_PASSWORD}), 403, "reauthentication_required")
        wrong = {"password": NEW_PASSWORD, "current_password": "wrong horse"}
        refused(put(here, token, wrong), 403, "invalid_credentials")
        granted(there.me(other["access_token"]))

        granted(put(here, token, {"password": NEW_PASSWORD, "current_password": PASSWORD}))
        for api in (there, here):
            refused(api.me(other["access_token"]), 401, "invalid_token")
            refused(api.refresh(other["refresh_token"]), 401, "invalid_refresh_token")
            granted(api.me(token))
            granted(api.me(bob["access_token"]))
        mine = granted(there.refresh(mine["refresh_token"]))
        granted(here.me(mine["access_token"]))
        body = {"login": "ann", "password": PASSWORD}
        refused(there.http.post("/auth/login", json=body), 401, "invalid_credentials")
        there.login("ann", NEW_PASSWORD)

    def test_old_one_is_no_proof_any_more(self, api: Api):
        token = api.signed_in()["access_token"]
        granted(put(api, token, {"password": NEW_PASSWORD, "current_password": PASSWORD}))
        again = {"username": "anna", "current_password": PASSWORD}
        refused(put(api, token, again), 403, "invalid_credentials")
        granted(put(api, token, {**again, "current_password": NEW_PASSWORD}))

    def test_guessing_the_old_one_is_slowed_down(self, api: Api):
        """A stolen token must not become a password: the same limit as at sign-in."""
        token = api.signed_in()["access_token"]
        body = {"password": NEW_PASSWORD, "current_password": "wrong horse"}
        refused(put(api, token, body), 403, "invalid_credentials")
        limited = next(answer for answer in (put(api, token, body) for _ in range(30)) if answer.status_code != 403)
        refused(limited, 429, "too_many_requests")
        refused(put(api, token, {**body, "current_password": PASSWORD}), 429, "too_many_requests")


class TestSessions:
    def test_list(self, api: Api):
        api.register()
        body = {"login": "ann", "password": PASSWORD}
        environ = {"REMOTE_ADDR": "192.0.2.7", "HTTP_USER_AGENT": "Browser/1.0"}
        old = granted(api.http.post("/auth/login", json=body, environ_overrides=environ))
        token = api.login()["access_token"]
        listed = granted(sessions(api, token))
        assert listed["next_cursor"] is None
        newest, oldest = listed["items"]
        assert (newest["current"], oldest["current"]) == (True, False)
        assert (oldest["address"], oldest["user_agent"]) == ("192.0.2.7", "Browser/1.0")
        assert oldest["client_id"] == "first-party"
        times = [datetime.fromisoformat(oldest[key]) for key in ("created_at", "last_used_at", "expires_at")]
        assert all(moment.utcoffset() is not None for moment in times)
        assert times[0] <= times[1] < times[2]
        assert [item["current"] for item in granted(sessions(api, old["access_token"]))["items"]] == [False, True]

    def test_pages(self, api: Api, rooms: Rooms):
        api.register()
        token = [api.login() for _ in range(5)][-1]["access_token"]
        everything = [item["id"] for item in granted(sessions(api, token))["items"]]
        assert len(everything) == 5
        for limit in (1, 2, 3, 5, 100):
            seen: list[str] = []
            query: dict[str, str | int] = {"limit": limit}
            while True:
                page = granted(sessions(api, token, **query))
                assert len(page["items"]) <= limit
                seen += [item["id"] for item in page["items"]]
                if page["next_cursor"] is None:
                    break
                query["cursor"] = page["next_cursor"]
            assert seen == everything
        # What ended meanwhile is not shown, and doesn't shift the rest.
        first = granted(sessions(api, token, limit=2))
        assert end(api, token, everything[2]).status_code == 204
        rest = granted(sessions(api, token, limit=10, cursor=first["next_cursor"]))
        assert [item["id"] for item in rest["items"]] == everything[3:]

        for query in ({"limit": 0}, {"limit": 101}, {"limit": "x"}, {"limit": -1}, {"page": 2}):
            errors = refused(sessions(api, token, **query), 422, "validation_failed").json["errors"]
            assert [error["field"] for error in errors] == list(query)
        cursor = first["next_cursor"]
        raw = bytearray(base64.urlsafe_b64decode(cursor + "=="))
        raw[20] ^= 1
        forged = base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("=")
        # Made by this server, for another list.
        other = rooms.pages.page("posts", [1, 2], 1, lambda _: ["2026-01-01T00:00:00+00:00", everything[0]])
        for wrong in (forged, cursor[4:], cursor[:-2], other["next_cursor"], "W10", "", "\u2603"):
            errors = refused(sessions(api, token, cursor=wrong), 422, "validation_failed").json["errors"]
            assert [error["field"] for error in errors] == ["cursor"]

    def test_one_is_ended(self, apps: Apps, api_of: Callable[[Flask], Api]):
        here, there = api_of(apps()), api_of(apps())
        mine, other = here.signed_in(), here.login()
        granted(there.me(other["access_token"]))
        token = mine["access_token"]
        ids = {item["current"]: item["id"] for item in granted(sessions(here, token))["items"]}
        response = end(here, token, ids[False])
        assert (response.status_code, response.data) == (204, b"")
        refused(there.me(other["access_token"]), 401, "invalid_token")
        refused(there.refresh(other["refresh_token"]), 401, "invalid_refresh_token")
        assert [item["id"] for item in granted(sessions(here, token))["items"]] == [ids[True]]
        refused(end(here, token, ids[False]), 404, "session_not_found")
        # One's own too, which is a sign-out.
        assert end(here, token, ids[True]).status_code == 204
        refused(here.me(token), 401, "invalid_token")

    def test_those_of_others_don_t_exist(self, api: Api):
        """OWASP ASVS 8.2.2."""
        ann, bob = api.signed_in(), api.signed_in("bob")
        (session,) = granted(sessions(api, ann["access_token"]))["items"]
        refused(end(api, bob["access_token"], session["id"]), 404, "session_not_found")
        assert session["id"] not in str(granted(sessions(api, bob["access_token"])))
        granted(api.me(ann["access_token"]))
        granted(api.refresh(ann["refresh_token"]))
        for unknown in ("00000000-0000-0000-0000-000000000000", session["id"][:-1] + "g", "x"):
            assert end(api, bob["access_token"], unknown).status_code == 404
