"""A forgotten password and the proof of an address, over HTTP and a real mail server."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import select, update

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api, Apps, bearer
from tests.smtp_server import Received, SmtpServer
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.identity import links, recovery
from tokenserver.identity.links import Purpose
from tokenserver.identity.models import AccountLink, User
from tokenserver.identity.notices import device_of
from tokenserver.mail.models import QueuedMail
from tokenserver.rooms import Rooms
from tokenserver.storage.feed import FeedRow
from tokenserver.storage.sql import utc_now

NEW = "a new horse 8 battery"
ANN = "ann@example.org"


@pytest.fixture
def server(smtp: Callable[..., SmtpServer]) -> SmtpServer:
    return smtp()


@pytest.fixture
def app(apps: Apps, server: SmtpServer) -> Flask:
    return apps(smtp_url=f"smtp://localhost:{server.port}?starttls=off")


def mails(rooms: Rooms, server: SmtpServer) -> list[Received]:
    """What was sent since the last time."""
    rooms.mail.deliver()
    found = list(server.received)
    server.received.clear()
    return found


def link_in(received: Received, path: str) -> str:
    found = re.search(rf"^http://127\.0\.0\.1:8000/{path}\?token=([A-Za-z0-9_-]+)$", received.text, re.MULTILINE)
    assert found, received.text
    return found[1]


def forgotten(api: Api, rooms: Rooms, server: SmtpServer, email: str = ANN) -> str:
    """The token of the link that came."""
    mails(rooms, server)
    granted(api.http.post("/auth/password/forgot", json={"email": email}), 202)
    [received] = mails(rooms, server)
    return link_in(received, "reset-password")


def reset(api: Api, token: str, password: str = NEW) -> Any:
    return api.http.post("/auth/password/reset", json={"token": token, "password": password})


def events(rooms: Rooms, name: str) -> list[AuditEvent]:
    query = select(AuditEvent).where(AuditEvent.event == name).order_by(AuditEvent.at)
    return rooms.database.read(lambda tx: list(tx.scalars(query)))


def put(api: Api, token: str, **body: Any) -> Any:
    return api.http.put("/users/me", json={"current_password": PASSWORD} | body, headers=bearer(token))


class TestForgottenPassword:
    def test_new_password_by_the_link(self, api: Api, rooms: Rooms, server: SmtpServer):
        user = api.register()
        token = forgotten(api, rooms, server)
        [asked] = events(rooms, "password:reset_requested")
        assert (asked.target, asked.address) == (user["id"], "127.0.0.1")
        assert asked.request_id
        answer = reset(api, token)
        granted(answer, 204)
        assert not answer.headers.getlist("Set-Cookie")  # nobody is signed in by it
        api.login("ann", NEW)
        refused(
            api.http.post("/auth/login", json={"login": "ann", "password": PASSWORD}), 401, "invalid_credentials"
        )
        assert [each.target for each in events(rooms, "password:reset")] == [user["id"]]
        [notice] = mails(rooms, server)
        assert (notice.recipients, notice.message["Subject"]) == ([ANN], "Your password was changed")

    def test_it_works_once(self, api: Api, rooms: Rooms, server: SmtpServer):
        api.register()
        token = forgotten(api, rooms, server)
        granted(reset(api, token), 204)
        refused(reset(api, token, "another horse 9 battery"), 404, "link_not_found")
        api.login("ann", NEW)

    def test_of_many_at_once_one_wins(self, app: Flask, api: Api, rooms: Rooms, server: SmtpServer):
        api.register()
        token = forgotten(api, rooms, server)

        def attempt(number: int) -> int:
            body = {"token": token, "password": f"{NEW} {number}"}
            return app.test_client().post("/auth/password/reset", json=body).status_code

        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(attempt, range(4)))
        assert sorted(set(statuses)) in ([204, 404], [204, 404, 503])  # 503: the queue of hashes
        assert statuses.count(204) == 1

    def test_everybody_who_was_in_is_out(self, apps: Apps, app: Flask, server: SmtpServer, api_of: Any):
        """N12; in another process, too."""
        here, there = api_of(app), api_of(apps(smtp_url=rooms_of(app).settings.smtp_url))
        tokens, bob = here.signed_in(), here.signed_in("bob")
        granted(there.me(tokens["access_token"]))
        granted(reset(here, forgotten(here, rooms_of(app), server)), 204)
        for api in (here, there):
            refused(api.me(tokens["access_token"]), 401, "invalid_token")
            refused(api.refresh(tokens["refresh_token"]), 401, "invalid_refresh_token")
            granted(api.me(bob["access_token"]))
        # Each of both: the sessions themselves, and a cutoff for whatever was issued outside of one.
        row = rooms_of(app).people.find_any("ann")
        assert row is not None
        ann = row.id

        def left(tx: Any) -> tuple[list[UUID], list[str]]:
            cutoffs = select(FeedRow.subject).where(FeedRow.kind == "user")
            return rooms_of(app).sessions.live_ids(tx, user_id=ann), list(tx.scalars(cutoffs))

        assert rooms_of(app).database.read(left) == ([], [str(ann)])

    @pytest.mark.parametrize("what", ["password", "email", "status", "rehash", "newer", "time", "purpose"])
    def test_what_kills_the_link(self, what: str, api: Api, rooms: Rooms, server: SmtpServer):
        access_token = api.signed_in()["access_token"]
        token = forgotten(api, rooms, server)
        if what == "password":
            granted(put(api, access_token, password="yet another 7 horse"))
        elif what == "email":
            granted(put(api, access_token, email="ann2@example.org"))
        elif what == "newer":
            assert forgotten(api, rooms, server) != token
        elif what == "purpose":
            body = {"token": token}
            refused(api.http.post("/auth/verify-email", json=body), 404, "link_not_found")
            return
        else:
            late = {AccountLink.expires_at: utc_now() - timedelta(seconds=1)}
            rows: dict[str, Any] = {
                "status": update(User).where(User.username == "ann").values(status="disabled"),
                "rehash": update(User).where(User.username == "ann").values(password_hash="$argon2id$other"),
                "time": update(AccountLink).values(late),
            }
            rooms.database.write(lambda tx: tx.execute(rows[what]))
        refused(reset(api, token), 404, "link_not_found")

    def test_it_lives_for_half_an_hour_from_its_sending(self, api: Api, rooms: Rooms, server: SmtpServer):
        api.register()
        before = utc_now()
        forgotten(api, rooms, server)
        links_there = select(AccountLink).where(AccountLink.purpose == Purpose.PASSWORD.value)
        row = rooms.database.read(lambda tx: tx.scalars(links_there).one())
        assert before + timedelta(minutes=30) <= row.expires_at <= utc_now() + timedelta(minutes=30)
        rooms.database.write(lambda tx: tx.execute(update(AccountLink).values(expires_at=utc_now())))
        assert rooms.recovery.purge() >= 1
        assert rooms.database.read(lambda tx: tx.scalar(links_there)) is None

    def test_nobody_learns_who_is_there(self, api: Api, rooms: Rooms, server: SmtpServer):
        """N9: one body, one work. What tells them apart happens after the answer."""
        api.register()
        disabled = api.register("dan")
        rooms.database.write(
            lambda tx: tx.execute(update(User).where(User.username == "dan").values(status="disabled"))
        )
        mails(rooms, server)
        addresses = ("nobody@example.org", ANN, disabled["email"])
        for path in ("/auth/password/forgot", "/auth/verify-email/request"):
            answers = [api.http.post(path, json={"email": address}) for address in addresses]
            assert {(each.status_code, each.data) for each in answers} == {(202, b"")}
            assert len({tuple(sorted(set(each.headers.keys()))) for each in answers}) == 1
            rows = rooms.database.read(lambda tx: list(tx.scalars(select(QueuedMail))))
            assert sorted(row.recipient for row in rows) == sorted(addresses)
            assert {row.user_id for row in rows} == {None}
            assert [received.recipients for received in mails(rooms, server)] == [[ANN]]
        assert len(events(rooms, "password:reset_requested")) == 1

    def test_weak_password_leaves_the_link(self, api: Api, rooms: Rooms, server: SmtpServer):
        api.register()
        token = forgotten(api, rooms, server)
        for weak in ("short", "password1", "x" * 129, "ann@example.org"):
            errors = refused(reset(api, token, weak), 422, "validation_failed").json["errors"]
            assert [error["field"] for error in errors] == ["password"]
        granted(reset(api, token), 204)

    def test_mail_goes_to_the_address_of_the_account_however_it_was_typed(
        self, api: Api, rooms: Rooms, server: SmtpServer
    ):
        api.register()
        mails(rooms, server)
        granted(api.http.post("/auth/password/forgot", json={"email": " ＡＮＮ@Example.org "}), 202)
        assert [received.recipients for received in mails(rooms, server)] == [[ANN]]

    def test_what_is_no_address_is_told_so(self, api: Api):
        for email in ("", "ann", "ann@", "a@b\r\nBcc: c@d", "a@b, c@d"):
            errors = refused(
                api.http.post("/auth/password/forgot", json={"email": email}), 422, "validation_failed"
            ).json["errors"]
            assert [error["field"] for error in errors] == ["email"]

    def test_links_are_worth_nothing_unless_they_were_made(self, api: Api):
        api.register()
        for token in ("", "x", "x" * 43, "\ud800", "x" * 1024, "' OR 1=1 --"):
            response = api.http.post("/auth/password/reset", json={"token": token, "password": NEW})
            assert response.status_code in {400, 404}, token
        refused(reset(api, "x" * 1025), 422, "validation_failed")

    @pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
    def test_one_network_asks_so_often(self, api: Api):
        statuses = [
            api.http.post("/auth/password/forgot", json={"email": f"a{number}@example.org"}).status_code
            for number in range(recovery.ASKED.burst)
        ]
        assert set(statuses) == {202}
        # The bucket may have got one back meanwhile, on a slow machine.
        for number in range(10):
            last = api.http.post("/auth/verify-email/request", json={"email": f"b{number}@example.org"})
            if last.status_code == 429:
                break
        assert int(refused(last, 429, "too_many_requests").headers["Retry-After"]) >= 1


class TestVerification:
    def test_at_registration(self, api: Api, rooms: Rooms, server: SmtpServer):
        user = api.register()
        assert user["email_verified"] is False
        [received] = mails(rooms, server)
        assert received.recipients == [ANN]
        token = link_in(received, "verify-email")
        tokens = api.login()
        granted(api.http.post("/auth/verify-email", json={"token": token}), 204)
        assert granted(api.me(tokens["access_token"]))["email_verified"] is True
        assert [each.target for each in events(rooms, "email:verified")] == [user["id"]]
        refused(api.http.post("/auth/verify-email", json={"token": token}), 404, "link_not_found")
        granted(api.http.post("/auth/verify-email/request", json={"email": ANN}), 202)
        assert mails(rooms, server) == []  # there is nothing left to confirm

    def test_again_on_request(self, api: Api, rooms: Rooms, server: SmtpServer):
        api.register()
        [first] = mails(rooms, server)
        granted(api.http.post("/auth/verify-email/request", json={"email": ANN}), 202)
        [second] = mails(rooms, server)
        old, new = (link_in(each, "verify-email") for each in (first, second))
        refused(api.http.post("/auth/verify-email", json={"token": old}), 404, "link_not_found")
        granted(api.http.post("/auth/verify-email", json={"token": new}), 204)

    def test_a_new_address_is_confirmed_anew_and_the_old_one_told(self, api: Api, rooms: Rooms, server: SmtpServer):
        token = api.signed_in()["access_token"]
        [received] = mails(rooms, server)
        first = link_in(received, "verify-email")
        granted(api.http.post("/auth/verify-email", json={"token": first}), 204)
        changed = granted(put(api, token, email="ann2@example.org"))
        assert changed["email_verified"] is False
        told = {each.recipients[0]: each for each in mails(rooms, server)}
        assert told.keys() == {ANN, "ann2@example.org"}
        assert told[ANN].message["Subject"] == "Your e-mail address was changed"
        assert "ann2@" not in told[ANN].text
        second = link_in(told["ann2@example.org"], "verify-email")
        granted(api.http.post("/auth/verify-email", json={"token": second}), 204)
        assert granted(api.me(token))["email_verified"] is True

    def test_link_of_an_address_that_was_left_is_dead(self, api: Api, rooms: Rooms, server: SmtpServer):
        token = api.signed_in()["access_token"]
        [received] = mails(rooms, server)
        granted(put(api, token, email="ann2@example.org"))
        body = {"token": link_in(received, "verify-email")}
        refused(api.http.post("/auth/verify-email", json=body), 404, "link_not_found")

    def test_link_of_yesterday_is_dead(self, api: Api, rooms: Rooms, server: SmtpServer):
        api.register()
        [received] = mails(rooms, server)
        body = {"token": link_in(received, "verify-email")}
        late = update(AccountLink).values(expires_at=utc_now() - timedelta(seconds=1))
        rooms.database.write(lambda tx: tx.execute(late))
        refused(api.http.post("/auth/verify-email", json=body), 404, "link_not_found")

    def test_letter_to_an_address_that_was_left_is_not_sent(self, api: Api, rooms: Rooms, server: SmtpServer):
        token = api.signed_in()["access_token"]
        granted(put(api, token, email="ann2@example.org"))
        told = sorted((each.recipients[0], each.message["Subject"]) for each in mails(rooms, server))
        assert told == [
            ("ann2@example.org", "Confirm your e-mail address"),
            (ANN, "Your e-mail address was changed"),
        ]


class TestNotices:
    def test_new_password(self, api: Api, rooms: Rooms, server: SmtpServer):
        token = api.signed_in()["access_token"]
        mails(rooms, server)
        granted(put(api, token, password=NEW))
        granted(put(api, token, name="Ann"))
        [notice] = mails(rooms, server)
        assert notice.message["Subject"] == "Your password was changed"
        assert "http://127.0.0.1:8000/forgot-password" in notice.text
        assert NEW not in notice.message.as_string()

    def test_what_others_call(self, api: Api, rooms: Rooms, server: SmtpServer):
        user_id = api.register()["id"]
        mails(rooms, server)
        agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) visit http://evil.example Firefox/140.0"

        def tell(tx: Any) -> None:
            user = tx.scalars(select(User).where(User.username == "ann")).one()
            assert str(user.id) == user_id
            rooms.notices.new_device(tx, user, "203.0.113.7", agent)
            rooms.notices.new_device(tx, user, None, None)
            rooms.notices.second_factor_added(tx, user, "an authenticator app")
            rooms.notices.second_factor_removed(tx, user, "a passkey")

        rooms.database.write(tell)
        texts = [each.text for each in mails(rooms, server)]
        assert len(texts) == 4
        everything = "\n".join(texts)
        for told in ("with: Firefox on Linux\nfrom: 203.0.113.7", "with: an unknown program\nfrom: unknown"):
            assert told in everything
        for told in ("takes an authenticator app too", "no longer takes a passkey"):
            assert told in everything
        assert "evil" not in everything

    def test_sign_in_from_another_network(self, app: Flask, api: Api, rooms: Rooms, server: SmtpServer):
        """Not the first one of all, and each network once."""
        api.signed_in()
        mails(rooms, server)
        body = {"login": "ann", "password": PASSWORD}
        for address, count in (("127.0.0.1", 0), ("203.0.113.7", 1), ("203.0.113.7", 0), ("2001:db8::1", 1)):
            headers = {"User-Agent": "curl/8.0"}
            granted(
                app.test_client().post(
                    "/auth/login", json=body, headers=headers, environ_base={"REMOTE_ADDR": address}
                )
            )
            told = mails(rooms, server)
            assert [each.message["Subject"] for each in told] == ["New sign-in to your account"] * count
            assert [f"with: curl\nfrom: {address}\n" in each.text for each in told] == [True] * count
        wrong = {"login": "ann", "password": "wrong horse"}
        app.test_client().post("/auth/login", json=wrong, environ_base={"REMOTE_ADDR": "198.51.100.1"})
        assert mails(rooms, server) == []

    def test_who_is_disabled_gets_no_mail(self, api: Api, rooms: Rooms, server: SmtpServer):
        api.register()
        rooms.database.write(
            lambda tx: tx.execute(update(User).where(User.username == "ann").values(status="disabled"))
        )
        assert mails(rooms, server) == []
        assert rooms.database.read(lambda tx: list(tx.scalars(select(QueuedMail)))) == []


@pytest.mark.parametrize(
    ("user_agent", "device"),
    [
        (None, "an unknown program"),
        ("", "an unknown program"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64) AppleWebKit Chrome/140.0 Safari/537.36 Edg/140.0",
            "Edge on Windows",
        ),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) AppleWebKit Version/18 Safari/605", "Safari on macOS"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18 Safari/604", "Safari on iPhone"),
        ("Mozilla/5.0 (Linux; Android 16) AppleWebKit Chrome/140.0 Mobile Safari", "Chrome on Android"),
        ("curl/8.0", "curl"),
        ("Something (Windows)", "a program on Windows"),
        ("Click https://evil.example/ now", "an unknown program"),
    ],
)
def test_device_in_words_of_ours(user_agent: str | None, device: str):
    assert device_of(user_agent) == device


def test_without_a_mail_server_it_is_said_so(apps: Apps, api_of: Callable[[Flask], Api]):
    api = api_of(apps(env="production", issuer="https://id.example"))
    api.register()
    for path in ("/auth/password/forgot", "/auth/verify-email/request"):
        refused(api.http.post(path, json={"email": ANN}), 403, "mail_not_configured")


def test_tokens_have_256_bits(rooms: Rooms):
    def mint(tx: Any) -> set[str]:
        admin = tx.scalars(select(User).where(User.username == "admin")).one()
        made = set()
        for _ in range(20):
            made.add(links.mint(tx, admin, Purpose.PASSWORD))
            tx.flush()
        assert len(tx.scalars(select(AccountLink)).all()) == 1
        return made

    tokens = rooms.database.write(mint)
    assert len(tokens) == 20
    assert {len(token) for token in tokens} == {43}
