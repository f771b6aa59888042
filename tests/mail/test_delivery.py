"""The queue of letters: each until it is taken, over failures and crashes, and no text or token in SQL."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update

from tests.conftest import Api, Apps
from tests.smtp_server import SmtpServer
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.background import Background
from tokenserver.identity.models import AccountLink, User
from tokenserver.mail import delivery
from tokenserver.mail.delivery import CLAIM_SECONDS, PAUSES
from tokenserver.mail.models import Kind, QueuedMail
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import utc_now


@pytest.fixture
def server(smtp: Callable[..., SmtpServer]) -> SmtpServer:
    return smtp()


@pytest.fixture
def app(apps: Apps, server: SmtpServer) -> Flask:
    return apps(smtp_url=f"smtp://localhost:{server.port}?starttls=off")


def queued(rooms: Rooms) -> list[QueuedMail]:
    return rooms.database.read(lambda tx: list(tx.scalars(select(QueuedMail).order_by(QueuedMail.created_at))))


def make_due(rooms: Rooms, **values: Any) -> None:
    """As if the pause were over."""
    rooms.mail._away_until = 0.0
    changed = {"due_at": utc_now()} | values
    rooms.database.write(lambda tx: tx.execute(update(QueuedMail).values(changed)))


def failures(rooms: Rooms) -> list[AuditEvent]:
    query = select(AuditEvent).where(AuditEvent.event == "mail:failed").order_by(AuditEvent.at)
    return rooms.database.read(lambda tx: list(tx.scalars(query)))


def post(rooms: Rooms, kind: Kind = Kind.PASSWORD_CHANGED) -> None:
    def leave(tx: Any) -> None:
        user = tx.scalars(select(User).where(User.username == "admin")).one()
        rooms.notices._postbox.post(tx, kind, user.email, user_id=user.id)

    rooms.database.write(leave)


def test_sent_once_and_forgotten(rooms: Rooms, server: SmtpServer):
    post(rooms)
    [row] = queued(rooms)
    assert row.data == {"language": "en"}
    rooms.mail.deliver()
    rooms.mail.deliver()
    [received] = server.received
    assert received.recipients == ["admin@localhost"]
    assert received.message["Subject"] == "Your password was changed"
    assert (received.message["From"], received.sender) == ("no-reply@localhost", "no-reply@localhost")
    assert queued(rooms) == failures(rooms) == []


def test_letter_of_a_change_that_failed_is_not_there(rooms: Rooms):
    class RolledBackError(Exception):
        pass

    def fail(tx: Any) -> None:
        rooms.notices._postbox.post(tx, Kind.PASSWORD_CHANGED, "ann@example.org")
        tx.flush()
        raise RolledBackError

    with pytest.raises(RolledBackError):
        rooms.database.write(fail)
    assert queued(rooms) == []


def test_tried_again_with_pauses_that_grow_until_it_is_taken(rooms: Rooms, server: SmtpServer):
    post(rooms)
    server.answers["RCPT"] = "450 later"
    for attempt in range(1, len(PAUSES) + 2):
        make_due(rooms)
        before = utc_now()
        rooms.mail.deliver()
        [row] = queued(rooms)
        assert row.attempts == attempt
        assert (row.due_at - before).total_seconds() >= PAUSES[min(attempt, len(PAUSES)) - 1]
    rooms.mail.deliver()  # not due yet
    assert queued(rooms)[0].attempts == len(PAUSES) + 1
    del server.answers["RCPT"]
    make_due(rooms)
    rooms.mail.deliver()
    assert len(server.received) == 1
    assert queued(rooms) == []
    events = failures(rooms)
    assert [each.details["attempts"] for each in events] == list(range(1, len(PAUSES) + 2))
    assert {(each.reason, each.details["given_up"]) for each in events} == {("smtp_450", False)}


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("kind", "age", "is_given_up"),
    [
        (Kind.PASSWORD_CHANGED, timedelta(hours=22), False),
        (Kind.PASSWORD_CHANGED, timedelta(hours=25), True),
        (Kind.PASSWORD_RESET, timedelta(minutes=20), False),
        (Kind.PASSWORD_RESET, timedelta(minutes=31), True),  # nobody waits for the link any more
    ],
)
def test_given_up_when_nobody_waits_for_it(
    rooms: Rooms, server: SmtpServer, kind: Kind, age: timedelta, is_given_up: bool
):
    post(rooms, kind)
    server.answers["RCPT"] = "450 later"
    make_due(rooms, created_at=utc_now() - age)
    rooms.mail.deliver()
    assert (queued(rooms) == []) == is_given_up
    assert [each.details["given_up"] for each in failures(rooms)] == [is_given_up]


def test_refused_for_good_is_given_up_at_once_and_keeps_no_other(rooms: Rooms, server: SmtpServer):
    post(rooms)
    server.answers["RCPT"] = "550 ann@example.org is unknown here"
    rooms.mail.deliver()
    assert queued(rooms) == []
    [event] = failures(rooms)
    assert (event.reason, event.outcome, event.details["given_up"]) == ("smtp_550", "failed", True)
    assert event.target is not None
    assert "unknown here" not in str(event.details)
    del server.answers["RCPT"]
    post(rooms)
    rooms.mail.deliver()
    assert len(server.received) == 1


def test_while_the_server_is_away_nobody_knocks_again_and_again(rooms: Rooms, server: SmtpServer):
    for _ in range(5):
        post(rooms)
    server.answers["CONNECT"] = ""
    rooms.mail.deliver()
    rooms.mail.deliver()
    assert server.connections == 1
    assert sorted(row.attempts for row in queued(rooms)) == [0, 0, 0, 0, 1]
    del server.answers["CONNECT"]
    make_due(rooms)
    rooms.mail.deliver()
    assert len(server.received) == 5


def test_killed_between_sending_and_noting_it(rooms: Rooms, server: SmtpServer, monkeypatch: pytest.MonkeyPatch):
    """At least once: it is sent again when the claim is over, not before, and by whoever leads then."""
    post(rooms)

    class KilledError(BaseException):
        pass

    def die(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(delivery, "_settle", die)
        with pytest.raises(KilledError):
            rooms.mail.deliver()
    assert len(server.received) == 1
    rooms.mail.deliver()
    assert len(server.received) == 1
    [row] = queued(rooms)
    assert timedelta() < row.due_at - utc_now() <= timedelta(seconds=CLAIM_SECONDS)
    make_due(rooms)
    rooms.mail.deliver()
    assert len(server.received) == 2
    assert queued(rooms) == []


def test_two_who_lead_at_once_send_each_once(apps: Apps, app: Flask, rooms: Rooms, server: SmtpServer):
    for _ in range(8):
        post(rooms)
    others = [rooms_of(apps(smtp_url=rooms.settings.smtp_url)) for _ in range(2)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda each: each.mail.deliver(), [rooms, *others]))
    assert len(server.received) == 8
    assert len({each.message["Message-ID"] for each in server.received}) == 8
    assert queued(rooms) == []


def test_neither_text_nor_token_lies_in_sql(api: Api, rooms: Rooms, server: SmtpServer):
    api.register()
    server.answers["."] = "452 disk full"
    rooms.mail.deliver()
    make_due(rooms)
    del server.answers["."]
    rooms.mail.deliver()
    [received] = server.received
    token = received.text.partition("token=")[2].split()[0]
    assert len(token) == 43
    assert received.message["Message-ID"].split(".")[1].startswith("2@")  # of the second attempt
    for model in (QueuedMail, AccountLink, AuditEvent):
        rows = rooms.database.read(lambda tx, model=model: list(tx.execute(select(model.__table__)).mappings()))
        assert token not in str([dict(row) for row in rows])


def test_one_address_gets_so_many_links(api: Api, apps: Apps, api_of: Any, rooms: Rooms, server: SmtpServer):
    """However they were asked for, and in any spelling; notices go on."""
    api.register()
    for number in range(delivery.LINKS.burst + 4):
        address = ("ann@example.org", "ANN@Example.ORG", "ａｎｎ@example.org")[number % 3]
        kind = (Kind.PASSWORD_RESET, Kind.EMAIL_VERIFICATION)[number % 2]
        rooms.recovery.ask(kind, address)
    rooms.mail.deliver()
    assert len(server.received) == delivery.LINKS.burst
    assert queued(rooms) == []
    post(rooms)
    rooms.mail.deliver()
    assert len(server.received) == delivery.LINKS.burst + 1


def test_nothing_is_queued_where_mail_can_t_be_sent(apps: Apps, api_of: Callable[[Flask], Api]):
    app = apps(env="production", issuer="https://id.example")
    api_of(app).register()
    rooms = rooms_of(app)
    assert queued(rooms) == []
    post(rooms)
    rooms.mail.deliver()
    assert queued(rooms) == []


def test_what_was_left_of_a_time_with_a_mail_server_is_dropped(rooms: Rooms):
    post(rooms)
    assert rooms.mail.purge() == 0
    make_due(rooms, created_at=utc_now() - timedelta(days=3))
    assert rooms.mail.purge() == 1
    assert queued(rooms) == []


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_the_process_that_leads_sends_it(api: Api, rooms: Rooms, server: SmtpServer, tmp_path: Path):
    background = Background(rooms)
    background.start()
    try:
        api.register()
        deadline = time.monotonic() + 60
        while not server.received and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        background.stop()
    assert [each.recipients for each in server.received] == [["ann@example.org"]]
