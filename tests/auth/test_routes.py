"""`/auth/*`: registering, signing in, refreshing, signing out."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from tests.answers import granted, refused, word
from tests.conftest import PASSWORD, Api, Apps, bearer
from tokenserver.app import rooms_of
from tokenserver.identity import passwords as passwords_module
from tokenserver.identity.people import ACTIVE, DISABLED
from tokenserver.rooms import Rooms

ApiOf = Callable[[Flask], Api]


def login(api: Api, name: str, password: str = PASSWORD, address: str = "192.0.2.1", **headers: str) -> Any:
    body = {"login": name, "password": password}
    return api.http.post("/auth/login", json=body, environ_overrides={"REMOTE_ADDR": address}, headers=headers)


def set_status(rooms: Rooms, user_id: str, status: str) -> None:
    rooms.feed.change(lambda tx, change: rooms.people.set_status(tx, change, UUID(user_id), status, rooms.sessions))


class TestRegister:
    def test_user_with_the_role_user(self, api: Api):
        body = {"username": "Ann", "email": "Ann@Example.org", "password": PASSWORD, "name": "Ann Ånström"}
        user = granted(api.http.post("/auth/register", json=body), 201)
        assert UUID(user["id"])
        assert (user["username"], user["email"], user["name"]) == ("ann", "Ann@Example.org", "Ann Ånström")
        assert (user["roles"], user["permissions"], user["status"]) == (["user"], ["posts:create"], "active")
        assert user["created_at"].endswith("+00:00")
        assert user.keys() == {
            *("id", "username", "email", "email_verified", "name", "status", "roles", "permissions"),
            *("created_at", "updated_at"),
        }
        assert granted(api.me(api.login()["access_token"])) == user

    def test_taken_names(self, api: Api):
        api.register()
        body = {"username": "ann", "email": "ann@example.org", "password": PASSWORD}
        refused(api.http.post("/auth/register", json={**body, "email": "b@example.org"}), 409, "username_taken")
        refused(api.http.post("/auth/register", json={**body, "username": "bob"}), 409, "email_taken")
        refused(api.http.post("/auth/register", json=body), 409, "username_taken")
        refused(api.http.post("/auth/register", json={**body, "username": "admin"}), 409, "username_taken")
        refused(login(api, "bob"), 401, "invalid_credentials")

    def test_fields(self, api: Api):
        good = {"username": "ann", "email": "ann@example.org", "password": PASSWORD}
        wrong: list[tuple[str, Any]] = [
            *(
                ("username", value)
                for value in ("", "a", "a" * 33, "a" * 65, "a b", "-ann", "ann@x", "añn", None, 1, [])
            ),
            *(
                ("email", value)
                for value in ("", "ann", "@x", "a@", "a@b@c", "a b@c", "a@b..c", "a" * 250 + "@x.y", None)
            ),
            *(("password", value) for value in ("", "short", "aaaaaaaaaaaa", "x" * 2000, None, 1, [PASSWORD])),
            *(("name", value) for value in ("", "x" * 201, "a\nb", "a\x1bb", None, 1, {})),
        ]
        for field, value in wrong:
            response = api.http.post("/auth/register", json={**good, field: value})
            errors = refused(response, 422, "validation_failed").json["errors"]
            assert [error["field"] for error in errors] == [field], (field, value)
        for field in good:
            response = api.http.post("/auth/register", json={k: v for k, v in good.items() if k != field})
            assert [error["field"] for error in response.json["errors"]] == [field]
        api.register()  # nothing of the above took the name

    def test_nobody_makes_themself_an_admin(self, api: Api):
        """Mass assignment: what isn't a field of the form is an error, not a wish."""
        for extra in ("roles", "role", "permissions", "status", "id", "is_admin", "password_hash", "created_at"):
            body = {"username": "ann", "email": "ann@example.org", "password": PASSWORD, extra: ["admin"]}
            response = refused(api.http.post("/auth/register", json=body), 422, "validation_failed")
            assert [error["field"] for error in response.json["errors"]] == [extra]
        assert api.register()["roles"] == ["user"]

    def test_closed(self, apps: Apps, api_of: ApiOf):
        api = api_of(apps(registration="closed"))
        body = {"username": "ann", "email": "ann@example.org", "password": PASSWORD}
        refused(api.http.post("/auth/register", json=body), 403, "registration_closed")
        refused(login(api, "ann"), 401, "invalid_credentials")

    def test_variants_of_one_name_at_once(self, apps: Apps):
        """Twenty at the same moment: one of them gets it, and nobody an error of the database."""
        app = apps(threads=64)  # so that the queue of the password hashing takes all of them
        spellings = ("ann", "ANN", "Ann", "ａｎｎ", "ᵃⁿⁿ")
        start = Barrier(20)

        def register(number: int) -> tuple[int, str]:
            body = {"username": spellings[number % 5], "email": f"{number}@example.org", "password": PASSWORD}
            client = app.test_client()
            start.wait()
            response = client.post("/auth/register", json=body)
            return response.status_code, word(response)

        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(register, range(20)))
        assert sorted(answers) == [(201, ""), *[(409, "username_taken")] * 19]
        assert len([user for user in rooms_of(app).people.list() if user.username == "ann"]) == 1

    def test_one_address_at_once(self, apps: Apps):
        app = apps(threads=64)
        start = Barrier(8)

        def register(number: int) -> tuple[int, str]:
            email = "ann@example.org" if number % 2 else "ANN@EXAMPLE.ORG"
            body = {"username": f"user{number}", "email": email, "password": PASSWORD}
            client = app.test_client()
            start.wait()
            response = client.post("/auth/register", json=body)
            return response.status_code, word(response)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(register, range(8)))
        assert sorted(answers) == [(201, ""), *[(409, "email_taken")] * 7]

    def test_mass_registration_is_slowed_down(self, api: Api):
        """OWASP ASVS 2.4.1; from one network, whatever address of it."""
        api.register()
        body = {"username": "ann", "email": "ann@example.org", "password": "short"}

        def register(address: str) -> Any:
            return api.http.post("/auth/register", json=body, environ_overrides={"REMOTE_ADDR": address})

        answers = [register(f"2001:db8::{number:x}") for number in range(110)]
        assert [answer.status_code for answer in answers[:100]] == [422] * 100
        assert int(refused(answers[-1], 429, "too_many_requests").headers["Retry-After"]) >= 1
        assert register("2001:db8:0:1::1").status_code == 422

    def test_what_the_queue_of_hashes_turned_away_is_not_counted(self, api: Api, app: Flask):
        body = {"username": "ann", "email": "ann@example.org", "password": PASSWORD}
        with ExitStack() as full:
            passwords = rooms_of(app).passwords
            while passwords._admitted.acquire(blocking=False):
                full.callback(passwords._admitted.release)
            answer = refused(api.http.post("/auth/register", json=body), 503, "overloaded")
            assert answer.headers["RateLimit"].startswith('"register";r=100')
        granted(api.http.post("/auth/register", json=body), 201)


class TestLogin:
    def test_by_user_name_or_address_in_any_spelling(self, api: Api):
        api.register()
        for name in ("ann", "ANN", " ann ", "ａｎｎ", "ann@example.org", "ANN@EXAMPLE.ORG", "ann＠example.org"):
            response = login(api, name)
            tokens = granted(response)
            assert tokens.keys() == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
            assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 300)
            assert tokens["scope"] == "posts:create"
            assert response.headers["Cache-Control"] == "no-store"

    def test_unknown_user_and_wrong_password_are_answered_alike(self, api: Api):
        """OWASP ASVS 6.3.8: status, headers and body."""
        api.register()
        shapes = set()
        for name, password in (
            ("ann", "wrong horse"),
            ("ann", ""),
            ("ann", PASSWORD + " "),
            ("ann", PASSWORD.upper()),
            ("ann@example.org", "wrong horse"),
            ("nobody", PASSWORD),
            ("nobody@example.org", PASSWORD),
            ("' OR 1=1 --", PASSWORD),
            ("", PASSWORD),
            ("", ""),
            ("\u2603", PASSWORD),
            ("x" * 300, PASSWORD),
        ):
            response = refused(login(api, name, password), 401, "invalid_credentials")
            counting = {"X-Request-ID", "Date", "RateLimit"}
            headers = {k: v for k, v in response.headers.items() if k not in counting}
            body = {k: v for k, v in response.json.items() if k != "request_id"}
            shapes.add(str((sorted(headers.items()), body)))
        assert len(shapes) == 1

    @pytest.mark.usefixtures("hard_hashes")
    def test_unknown_user_costs_as_much_time_as_a_wrong_password(self, api: Api):
        """OWASP ASVS 6.3.8. Without the work for nobody's password the ratio would be about ten."""
        api.register()

        def seconds(name: str) -> float:
            started = time.thread_time()  # whatever else the machine does
            refused(login(api, name, "wrong horse"), 401, "invalid_credentials")
            return time.thread_time() - started

        seconds("warm-up")
        known, unknown = [], []
        for number in range(9):
            known.append(seconds("ann"))
            unknown.append(seconds(f"nobody{number}"))
        assert 0.5 < statistics.median(known) / statistics.median(unknown) < 2

    def test_disabled_account_is_told_to_who_knows_its_password(self, api: Api, rooms: Rooms):
        user = api.register()
        tokens = api.login()
        set_status(rooms, user["id"], DISABLED)
        refused(login(api, "ann", "wrong horse"), 401, "invalid_credentials")
        refused(login(api, "ann"), 403, "account_disabled")
        refused(api.me(tokens["access_token"]), 401, "invalid_token")
        refused(api.refresh(tokens["refresh_token"]), 401, "invalid_refresh_token")
        set_status(rooms, user["id"], ACTIVE)
        granted(login(api, "ann"))
        refused(api.me(tokens["access_token"]), 401, "invalid_token")  # what was dead stays dead

    def test_fields(self, api: Api):
        api.register()
        for body in ({}, {"login": "ann"}, {"password": PASSWORD}, {"login": None, "password": PASSWORD}):
            refused(api.http.post("/auth/login", json=body), 422, "validation_failed")
        body = {"login": "ann", "password": PASSWORD}
        for extra in ("grant_type", "client_id", "scope", "username", "roles"):
            refused(api.http.post("/auth/login", json={**body, extra: "x"}), 422, "validation_failed")
        refused(api.http.post("/auth/login", json={**body, "login": "x" * 321}), 422, "validation_failed")

    def test_each_sign_in_is_a_session_of_its_own(self, api: Api):
        api.register()
        tokens = [api.login() for _ in range(3)]
        items = granted(api.http.get("/users/me/sessions", headers=bearer(tokens[0]["access_token"])))["items"]
        assert len({item["id"] for item in items}) == 3


class TestRefresh:
    def test_works_when_the_access_token_has_expired(
        self, apps: Apps, api_of: ApiOf, monkeypatch: pytest.MonkeyPatch
    ):
        app = apps()
        api = api_of(app)
        tokens = api.signed_in()
        granted(api.me(tokens["access_token"]))
        verifier = rooms_of(app).active_tokens.verifier
        with monkeypatch.context() as later:
            later.setattr(verifier, "_clock", lambda: time.time() + tokens["expires_in"] + verifier._leeway)
            refused(api.me(tokens["access_token"]), 401, "invalid_token")
            body = {"refresh_token": tokens["refresh_token"]}
            response = api.http.post("/auth/refresh", json=body, headers=bearer(tokens["access_token"]))
        fresh = granted(response)
        assert fresh.keys() == tokens.keys()
        assert response.headers["Cache-Control"] == "no-store"
        assert fresh["refresh_token"] != tokens["refresh_token"]
        granted(api.me(fresh["access_token"]))

    def test_what_is_no_refresh_token(self, api: Api):
        tokens = api.signed_in()
        token = tokens["refresh_token"]
        for wrong in (
            *("", " ", "x", "rt_", "RT_" + token[3:], token[3:], f" {token}", f"{token} ", f"{token}="),
            *(token[:-1], token + "A", "rt_" + token[:2:-1], tokens["access_token"], "x" * 1024, "rt_\u2603"),
        ):
            refused(api.refresh(wrong), 401, "invalid_refresh_token")
        for body in (
            {},
            {"refresh_token": None},
            {"refresh_token": "x" * 1025},
            {"refresh_token": token, "scope": "x"},
        ):
            refused(api.http.post("/auth/refresh", json=body), 422, "validation_failed")
        granted(api.refresh(token))

    def test_new_rights_are_in_the_next_token(self, api: Api, rooms: Rooms):
        user = api.register()
        tokens = api.login()
        rooms.feed.change(
            lambda tx, change: rooms.rights.assign(tx, change, UUID(user["id"]), "moderator", granted_by="test")
        )
        fresh = granted(api.refresh(tokens["refresh_token"]))
        assert fresh["scope"] == "posts:create posts:delete:any users:read"
        assert granted(api.me(fresh["access_token"]))["roles"] == ["moderator", "user"]


class TestLogout:
    def test_ends_this_session_in_every_process_at_once(self, apps: Apps, api_of: ApiOf):
        here, there = api_of(apps()), api_of(apps())
        tokens, other = here.signed_in(), here.login()
        fresh = granted(there.refresh(tokens["refresh_token"]))
        for token in (tokens, fresh, other):
            granted(there.me(token["access_token"]))
        response = here.http.post("/auth/logout", headers=bearer(fresh["access_token"]))
        assert (response.status_code, response.data) == (204, b"")
        for api in (there, here):
            for token in (tokens, fresh):
                refused(api.me(token["access_token"]), 401, "invalid_token")
                refused(api.refresh(token["refresh_token"]), 401, "invalid_refresh_token")
            refused(api.http.post("/auth/logout", headers=bearer(fresh["access_token"])), 401, "invalid_token")
        granted(there.me(other["access_token"]))
        listed = granted(there.http.get("/users/me/sessions", headers=bearer(other["access_token"])))["items"]
        assert [item["current"] for item in listed] == [True]
        granted(there.refresh(other["refresh_token"]))
        # A process that starts later knows it too.
        refused(api_of(apps()).me(fresh["access_token"]), 401, "invalid_token")

    def test_of_a_client_s_own_token(self, api: Api, confidential: tuple[str, str]):
        own = granted(api.token(confidential, grant_type="client_credentials"))["access_token"]
        assert api.http.post("/auth/logout", headers=bearer(own)).status_code == 204
        refused(api.http.post("/auth/logout", headers=bearer(own)), 401, "invalid_token")
        granted(api.token(confidential, grant_type="client_credentials"))


@pytest.mark.parametrize("what_is_full", ["_admitted", "_running"])
def test_what_no_hash_was_computed_for_is_no_failure(
    app: Flask, api: Api, queries: Any, monkeypatch: pytest.MonkeyPatch, what_is_full: str
):
    """A sign-in that the queue of hashes turned away tried nothing, nor one that waited in it for too long."""
    api.register()
    monkeypatch.setattr(passwords_module, "WAIT_SECONDS", 0.01)
    places = getattr(rooms_of(app).passwords, what_is_full)
    with ExitStack() as full, queries(app) as statements:
        while places.acquire(blocking=False):
            full.callback(places.release)
        for _ in range(25):
            refused(login(api, "ann", "wrong horse"), 503, "overloaded")
    assert (statements.count > 25) is (what_is_full == "_running")  # at the door no user is looked up
    for _ in range(20):
        refused(login(api, "ann", "wrong horse"), 401, "invalid_credentials")


def test_no_content_names_no_content_type(api: Api):
    tokens = api.signed_in()
    response = api.http.post("/auth/logout", headers={"Authorization": f"Bearer {tokens['access_token']}"})
    assert response.status_code == 204
    assert "Content-Type" not in response.headers
