"""How often a sign-in may fail, and that nobody is locked out by others.

The rates refill in hours: no test waits, and none is too slow for one.
"""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api, Apps, bearer
from tests.totp import enrolled
from tokenserver.app import rooms_of
from tokenserver.config import Rate
from tokenserver.identity.known_devices import LIFETIME, MAX_DEVICES
from tokenserver.identity.login import Refusal
from tokenserver.identity.models import KnownDevice
from tokenserver.identity.people import DISABLED
from tokenserver.identity.second_factors.factors import GUESSES
from tokenserver.storage.sql import utc_now
from tokenserver.tokens.sessions import EndReason
from tokenserver.web.rate_limit import Limit

DAY = 86400
HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
def app(apps: Apps) -> Flask:
    return limited(apps)


def limited(apps: Apps) -> Flask:
    return apps(
        limit_login=Rate(3, DAY),
        limit_login_network=Rate(60, DAY),
        limit_login_account=Rate(5, DAY),
        limit_login_known=Rate(2, DAY),
    )


def login(
    api: Api, name: str = "ann", password: str = PASSWORD, address: str = HERE, *, otp: str = "", **headers: str
) -> Any:
    body = {"login": name, "password": password} | ({"otp": otp} if otp else {})
    return api.http.post("/auth/login", json=body, environ_overrides={"REMOTE_ADDR": address}, headers=headers)


def at_page(
    http: Any, app: Flask, password: str = PASSWORD, name: str = "ann", address: str = HERE, otp: str = ""
) -> Any:
    """The form of the page, by a browser that keeps its cookies, but for that of its session."""
    http.delete_cookie(rooms_of(app).cookies.session_name)
    overrides = {"REMOTE_ADDR": address}
    page = http.get("/login", environ_overrides=overrides).text
    csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
    fields = {"csrf": csrf, "username": name, "password": password, "otp": otp}
    headers = {"Origin": rooms_of(app).settings.issuer}
    return http.post("/login", data=fields, headers=headers, environ_overrides=overrides)


def with_second_factor(api: Api) -> list[str]:
    """Ann's recovery codes. She enrolled from a network that no test comes from."""
    _, codes = enrolled(api, granted(login(api, address="198.51.100.1"))["access_token"])
    return codes


def strangers(name: str = "ann") -> Iterator[tuple[str, str, str]]:
    """Guesses, each from a network of its own: more than the account has."""
    return ((name, f"wrong horse {number}", f"2001:db8:0:{number:x}::1") for number in range(8))


class TestOneNetwork:
    def test_one_account_however_it_is_spelled(self, api: Api):
        """NIST SP 800-63B-4 section 3.2.2; E33: one bucket for a name, a network, and whatever a header says."""
        api.register()
        spellings = ("ann", "ANN", "ａｎｎ", " ann ")
        for number in range(3):
            forged = {"X-Forwarded-For": f"198.51.100.{number}"}
            refused(login(api, spellings[number], "wrong", **forged), 401, "invalid_credentials")
        limited = refused(login(api, spellings[3], "wrong"), 429, "too_many_requests")
        assert 1 <= int(limited.headers["Retry-After"]) <= DAY
        assert '"login";r=0;t=' in limited.headers["RateLimit"]
        assert '"login";q=3;w=86400' in limited.headers["RateLimit-Policy"]
        # Right ones aren't looked at either.
        refused(login(api), 429, "too_many_requests")
        granted(login(api, address=ELSEWHERE))
        refused(login(api, "bob", "wrong"), 401, "invalid_credentials")

    def test_every_door_counts(self, api: Api, app: Flask):
        """CVE-2026-9798: one way to sign in forgot the count."""
        api.register()
        http = app.test_client()
        assert at_page(http, app, "wrong").status_code == 401
        form = {"grant_type": "password", "client_id": "first-party", "username": "ann"}

        def by_the_grant(password: str) -> Any:
            overrides = {"REMOTE_ADDR": HERE}
            return http.post("/oauth/token", data=form | {"password": password}, environ_overrides=overrides)

        refused(by_the_grant("wrong"), 400, "invalid_grant")
        refused(login(api, "ann", "wrong"), 401, "invalid_credentials")
        refused(login(api), 429, "too_many_requests")
        refused(by_the_grant(PASSWORD), 429, "slow_down")
        assert at_page(http, app).status_code == 429

    def test_a_success_forgets_earlier_failures_of_this_account_alone(self, api: Api):
        """Who has an account of their own must not end what counts for others."""
        api.register()
        api.register("eve")
        for _ in range(2):
            for _ in range(2):
                refused(login(api, "ann", "wrong"), 401, "invalid_credentials")
            granted(login(api))
        for _ in range(2):  # two of three from here; but four of five from anywhere are taken by now
            login(api, "bob", "wrong")
            granted(login(api, "eve"))
        refused(login(api, "bob", "wrong"), 401, "invalid_credentials")
        refused(login(api, "bob", "wrong"), 429, "too_many_requests")
        refused(login(api, "ann", "wrong"), 401, "invalid_credentials")
        refused(login(api, "ann", "wrong", ELSEWHERE), 429, "too_many_requests")

    def test_of_a_network_over_all_accounts(self, api: Api):
        api.register()
        answers = [login(api, f"user{number}", "wrong").status_code for number in range(62)]
        assert answers == [401] * 60 + [429] * 2
        refused(login(api), 429, "too_many_requests")
        granted(login(api, address=ELSEWHERE))

    def test_a_disabled_account_is_told_and_forgets_nothing(self, api: Api, app: Flask):
        user = api.register()
        rooms = rooms_of(app)
        rooms.feed.change(
            lambda tx, change: rooms.people.set_status(tx, change, UUID(user["id"]), DISABLED, rooms.sessions)
        )
        for _ in range(2):
            refused(login(api, "ann", "wrong"), 401, "invalid_credentials")
        for _ in range(3):
            refused(login(api), 403, "account_disabled")
        refused(login(api, "ann", "wrong"), 401, "invalid_credentials")
        refused(login(api), 429, "too_many_requests")


def test_guesses_at_the_same_moment_are_counted_exactly(apps: Apps, api_of: Any):
    """E31 in short (CVE-2023-47111, CVE-2024-4629): two processes, as many networks as guesses."""
    nodes = [api_of(limited(apps)) for _ in range(2)]
    nodes[0].register()

    def guess(number: int, name: str, address: str) -> int:
        while True:  # the queue of hashes may be full
            status = int(login(nodes[number % 2], name, "wrong", address).status_code)
            if status != 503:
                return status
            time.sleep(0.01)

    with ThreadPoolExecutor(8) as pool:
        many = pool.map(lambda n: guess(n, "ann", f"2001:db8:0:{n:x}::1"), range(60))
        assert Counter(many) == {401: 5, 429: 55}
        assert Counter(pool.map(lambda n: guess(n, "bob", HERE), range(40))) == {401: 3, 429: 37}


class TestStrangersFillTheCount:
    """E32 in short: who can't be told from a stranger waits, everybody else enters."""

    @pytest.fixture(autouse=True)
    def user(self, api: Api) -> dict[str, Any]:
        return api.register()

    @staticmethod
    def fill(api: Api, name: str = "ann") -> None:
        answers = [login(api, *guess).status_code for guess in strangers(name)]
        assert answers == [401] * 5 + [429] * 3

    def test_who_comes_from_where_nobody_signed_in_waits(self, api: Api):
        self.fill(api)
        limited = refused(login(api), 429, "too_many_requests")
        assert 1 <= int(limited.headers["Retry-After"]) <= DAY / 5
        granted(login(api, "ann@example.org"))  # each name has a count of its own

    def test_a_known_network_enters(self, api: Api):
        granted(login(api))
        self.fill(api)
        granted(login(api))
        refused(login(api, address=ELSEWHERE), 429, "too_many_requests")
        # A wrong one is answered there like everywhere: it must not show which networks are known.
        shapes = {
            str((answer.json | {"request_id": ""}, sorted(set(answer.headers.keys()))))
            for answer in (login(api, "ann", "wrong", address) for address in (HERE, ELSEWHERE))
        }
        assert len(shapes) == 1
        # And it has a count of its own: one was taken by the right one and given back.
        refused(login(api, "ann", "wrong"), 429, "too_many_requests")
        refused(login(api), 429, "too_many_requests")

    @pytest.mark.parametrize("reason", [EndReason.PASSWORD_CHANGED, EndReason.REVOKED])
    def test_a_network_whose_session_was_ended_for_it_is_not_known(
        self, api: Api, app: Flask, user: dict[str, Any], reason: EndReason
    ):
        granted(login(api))
        rooms = rooms_of(app)
        rooms.feed.change(
            lambda tx, change: rooms.sessions.end(tx, change, user_id=UUID(user["id"]), reason=reason)
        )
        self.fill(api)
        refused(login(api), 429, "too_many_requests")

    def test_who_signed_out_is_still_known(self, api: Api):
        tokens = granted(login(api))
        api.http.post("/auth/logout", headers=bearer(tokens["access_token"]))
        self.fill(api)
        granted(login(api))

    def test_who_tried_in_vain_is_not_kept_out_for_it(self, api: Api, app: Flask):
        self.fill(api)
        for _ in range(4):
            refused(login(api), 429, "too_many_requests")
        rooms = rooms_of(app)
        rooms.limits.give_back(forget=[(Limit.of("login-account", rooms.settings.limit_login_account), "ann")])
        for _ in range(3):  # strangers have stopped, and all that this network has is there
            refused(login(api, "ann", "wrong"), 401, "invalid_credentials")
        refused(login(api, "ann", "wrong"), 429, "too_many_requests")

    def test_an_unknown_account_looks_the_same(self, api: Api):
        self.fill(api)
        self.fill(api, "nobody")
        answers = [login(api, name) for name in ("ann", "nobody")]
        first, second = (
            (
                answer.status_code,
                answer.json | {"request_id": ""},
                {k: v for k, v in answer.headers.items() if k not in {"X-Request-ID", "Date", "Retry-After"}},
            )
            for answer in answers
        )
        assert first == second

    def test_its_names_say_nothing_of_each_other(self, api: Api):
        """Else guesses at one would tell that the other is of the same account."""
        self.fill(api)
        answers = [login(api, name, "wrong", ELSEWHERE) for name in ("ann@example.org", "nobody@example.org")]
        assert [answer.status_code for answer in answers] == [401, 401]
        assert answers[0].headers["RateLimit"].split(";t=")[0] == answers[1].headers["RateLimit"].split(";t=")[0]

    def test_who_is_signed_in_may_still_prove_the_password(self, api: Api):
        token = granted(login(api))["access_token"]
        self.fill(api)

        def change(**body: str) -> Any:
            overrides = {"REMOTE_ADDR": ELSEWHERE}
            return api.http.put("/users/me", json=body, headers=bearer(token), environ_overrides=overrides)

        refused(change(username="anna", current_password="wrong"), 403, "invalid_credentials")
        granted(change(username="anna", current_password=PASSWORD))

    def test_a_second_factor_enters(self, api: Api):
        """Sent beside the password. A wrong one, and a right one with a wrong password, look like the rest."""
        recovery_codes = with_second_factor(api)
        self.fill(api)
        assert login(api, address="192.0.2.9").status_code == 429
        shapes = {
            str((answer.status_code, answer.json | {"request_id": ""}, sorted(answer.headers.keys())))
            for answer in (
                login(api, otp="wrong", address="192.0.2.10"),
                login(api, otp="000000", address="192.0.2.11"),
                login(api, password="wrong", otp=recovery_codes[0], address="192.0.2.12"),
            )
        }
        assert len(shapes) == 1
        assert "429" in shapes.pop()
        granted(login(api, otp=recovery_codes[0], address=ELSEWHERE))

    def test_too_many_wrong_codes_say_nothing_of_the_password(self, api: Api, app: Flask):
        with_second_factor(api)
        self.fill(api)
        rooms = rooms_of(app)
        ann = rooms.people.find_by_login("ann")
        assert ann is not None
        for _ in range(GUESSES.burst):
            rooms.limits.take((GUESSES, str(ann.id)))
        right, wrong = (
            login(api, password=password, otp="000000", address=address)
            for password, address in ((PASSWORD, ELSEWHERE), ("wrong", HERE))
        )
        assert right.json | {"request_id": ""} == wrong.json | {"request_id": ""}
        waits = [int(answer.headers["Retry-After"]) for answer in (right, wrong)]
        assert abs(waits[0] - waits[1]) < 600  # of the same count; the codes would have another

    def test_a_second_factor_enters_by_the_page(self, api: Api, app: Flask):
        recovery_codes = with_second_factor(api)
        self.fill(api)
        http = app.test_client()
        page = at_page(http, app, address=ELSEWHERE)
        assert page.status_code == 429
        assert 'name="otp"' in page.text
        assert int(page.headers["Retry-After"]) >= 1
        assert at_page(http, app, address=ELSEWHERE, otp=recovery_codes[0]).status_code == 303

    def test_a_wrong_second_factor_counts_like_a_wrong_password(self, api: Api):
        with_second_factor(api)
        for _ in range(3):
            refused(login(api, otp="wrong", address=ELSEWHERE), 401, "invalid_otp")
        refused(login(api, otp="wrong", address=ELSEWHERE), 429, "too_many_requests")
        for _ in range(3):
            refused(login(api, address=HERE), 401, "second_factor_required")  # the password was right
        refused(login(api, otp="wrong", address=HERE), 401, "invalid_otp")

    def test_who_proved_it_otherwise_is_forgiven(self, api: Api, app: Flask):
        self.fill(api)
        for _ in range(3):
            login(api, "ann", "wrong", ELSEWHERE)
        rooms = rooms_of(app)
        user = rooms.people.find_by_login("ann")
        assert user is not None
        with app.test_request_context(environ_overrides={"REMOTE_ADDR": ELSEWHERE}):
            app.preprocess_request()
            rooms.login.forgive(user)
        refused(login(api, "ann", "wrong", ELSEWHERE), 401, "invalid_credentials")
        granted(login(api, address=ELSEWHERE))

    def test_it_is_written_down(self, api: Api, app: Flask, user: dict[str, Any]):
        self.fill(api)
        login(api)
        rooms = rooms_of(app)
        rooms.trail.drain_all()
        found = rooms.database.read(
            lambda tx: tx.connection().exec_driver_sql(
                "SELECT reason, target FROM audit_events WHERE event = 'login:failed'"
            )
        )
        assert Counter(map(tuple, found)) == {
            ("invalid_credentials", user["id"]): 5,
            ("too_many_failures", user["id"]): 4,
        }


class TestKnownDevices:
    @pytest.fixture
    def backend(self, request: pytest.FixtureRequest) -> str:
        return getattr(request, "param", "sqlite")

    @pytest.fixture(autouse=True)
    def user(self, api: Api) -> dict[str, Any]:
        api.register("eve")
        return api.register()

    def cookie(self, http: Any, app: Flask) -> str:
        found = http.get_cookie(rooms_of(app).cookies.device_name)
        assert found is not None
        return str(found.value)

    @pytest.mark.parametrize("backend", ["sqlite", "postgresql"], indirect=True)
    def test_a_known_device_enters_from_anywhere(self, api: Api, app: Flask):
        http = app.test_client()
        answer = at_page(http, app)
        assert answer.status_code == 303
        (header,) = (each for each in answer.headers.getlist("Set-Cookie") if "device=" in each)
        assert {"HttpOnly", "Path=/", "SameSite=Lax"} <= set(header.split("; "))
        known = self.cookie(http, app)
        TestStrangersFillTheCount.fill(api)
        assert at_page(app.test_client(), app, address=ELSEWHERE).status_code == 429
        assert at_page(http, app, "wrong", address=ELSEWHERE).status_code == 401
        assert at_page(http, app, address=ELSEWHERE).status_code == 303
        assert self.cookie(http, app) == known
        # In the network of the stranger too.
        for _ in range(4):
            login(api, "ann", "wrong", ELSEWHERE)
        assert at_page(http, app, address=ELSEWHERE).status_code == 303

    def test_it_has_a_count_of_its_own(self, api: Api, app: Flask):
        http = app.test_client()
        at_page(http, app)
        TestStrangersFillTheCount.fill(api)
        answers = [at_page(http, app, "wrong", address=ELSEWHERE).status_code for _ in range(3)]
        assert answers == [401, 401, 429]
        assert at_page(http, app, address=ELSEWHERE).status_code == 429

    def test_it_is_known_for_one_account(self, api: Api, app: Flask):
        http = app.test_client()
        at_page(http, app, name="eve")
        TestStrangersFillTheCount.fill(api)
        assert at_page(http, app, address=ELSEWHERE).status_code == 429
        self.fill_and_try(api, app, http)

    def fill_and_try(self, api: Api, app: Flask, http: Any) -> None:
        TestStrangersFillTheCount.fill(api, "nobody")
        assert at_page(http, app, name="nobody", address=ELSEWHERE).status_code == 429

    def test_who_signs_in_with_another_s_secret_gets_a_new_one(self, app: Flask):
        """Somebody may have planted it."""
        http, planted = app.test_client(), "A" * 43
        http.set_cookie(rooms_of(app).cookies.device_name, planted)
        at_page(http, app)
        assert self.cookie(http, app) != planted

    def test_a_new_password_forgets_all(self, api: Api, app: Flask, user: dict[str, Any]):
        http = app.test_client()
        at_page(http, app)
        rooms = rooms_of(app)
        changed = {"password_hash": rooms.passwords.hash("another horse 7 battery")}
        rooms.feed.change(lambda tx, change: rooms.people.update(tx, change, UUID(user["id"]), changed))
        TestStrangersFillTheCount.fill(api)
        assert at_page(http, app, "another horse 7 battery", address=ELSEWHERE).status_code == 429

    def test_the_secret_is_stored_nowhere(self, app: Flask):
        http = app.test_client()
        at_page(http, app)
        rows = rooms_of(app).database.read(
            lambda tx: [str(row) for row in tx.connection().exec_driver_sql("SELECT * FROM known_devices")]
        )
        assert len(rows) == 1
        assert self.cookie(http, app) not in rows[0]

    def test_there_are_not_many_and_old_ones_go(self, app: Flask, user: dict[str, Any]):
        rooms = rooms_of(app)
        ann = rooms.people.find_by_login("ann")
        assert ann is not None
        first = rooms.known_devices.remember(ann, None)
        assert rooms.known_devices.remember(ann, first) == first
        for _ in range(MAX_DEVICES):
            rooms.known_devices.remember(ann, None)
        assert rooms.database.read(lambda tx: tx.query(KnownDevice).count()) == MAX_DEVICES
        assert rooms.known_devices.subject(ann, first) is None
        last = rooms.known_devices.remember(ann, None)
        assert rooms.known_devices.subject(ann, last) is not None
        old = utc_now() - LIFETIME - timedelta(minutes=1)
        rooms.database.write(lambda tx: tx.query(KnownDevice).update({"used_at": old}))
        assert rooms.known_devices.subject(ann, last) is None
        assert rooms.known_devices.purge() == MAX_DEVICES
        assert rooms.known_devices.purge() == 0


def test_what_is_asked_of_a_wrong_login_is_a_refusal(app: Flask, api: Api):
    api.register()
    with app.test_request_context(environ_overrides={"REMOTE_ADDR": HERE}):
        app.preprocess_request()
        assert rooms_of(app).login.authenticate("ann", "wrong") is Refusal.INVALID_CREDENTIALS
