"""RFC 8628: the device authorization grant. Its page is tested in tests/pages."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from sqlalchemy import select, update

from tests.answers import granted, refused, word
from tests.conftest import ADMIN_PASSWORD, Api, bearer
from tokenserver.audit.models import AuditEvent
from tokenserver.clients.metadata import Metadata
from tokenserver.errors import NotFound, TooManyRequests
from tokenserver.oauth import device
from tokenserver.oauth.device import Devices
from tokenserver.oauth.models import DeviceCode
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import utc_now
from tokenserver.tokens.models import Session
from tokenserver.tokens.sessions import EndReason, SignIn

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
TV = {"client_id": "tv"}
NO_DEVICE = "device_not_found"


@dataclass
class Browser:
    """Somebody signed in to the pages."""

    rooms: Rooms
    session_id: UUID
    user_id: UUID

    @property
    def who(self) -> dict[str, UUID]:
        return {"session_id": self.session_id, "user_id": self.user_id}

    @property
    def devices(self) -> Devices:
        return self.rooms.collaborators.devices

    def enter(self, user_code: str) -> Any:
        return self.devices.enter(user_code, **self.who)

    def approve(self, user_code: str) -> None:
        assert self.enter(user_code)
        self.devices.approve(user_code, **self.who)

    def deny(self, user_code: str) -> None:
        assert self.enter(user_code)
        self.devices.deny(user_code, **self.who)


@pytest.fixture(autouse=True)
def tv(rooms: Rooms) -> None:
    rooms.clients.create(
        client_id="tv",
        client_name="A television",
        grant_types=[DEVICE_CODE, "refresh_token"],
        scope=["openid", "posts:create", "users:read"],
        token_endpoint_auth_method="none",
        audience=["https://posts.example", "https://films.example"],
    )


@pytest.fixture
def browser_of(api: Api, rooms: Rooms) -> Callable[[str], Browser]:
    def sign_in(username: str) -> Browser:
        user_id = UUID(api.register(username)["id"])
        who = SignIn(user_id, "first-party", ("pwd",), "192.0.2.7", "Mozilla/5.0")
        session = rooms.database.write(lambda tx: rooms.sessions.start(tx, who, cookie_digest=uuid4().bytes * 2))
        return Browser(rooms, session.id, user_id)

    return sign_in


@pytest.fixture
def ann(browser_of: Callable[[str], Browser]) -> Browser:
    return browser_of("ann")


def begin(api: Api, **form: str) -> dict[str, Any]:
    return granted(api.http.post("/oauth/device_authorization", data=TV | form))


def poll(api: Api, device_code: str, **form: str) -> Any:
    return api.token(grant_type=DEVICE_CODE, device_code=device_code, **(TV | form))


def elapse(rooms: Rooms, device_code: str, **columns: Any) -> None:
    """As if it had been longer ago."""
    digest = device._digest(device_code)
    statement = update(DeviceCode).where(DeviceCode.digest == digest).values(**columns)
    rooms.database.write(lambda tx: tx.execute(statement))


def row_of(rooms: Rooms, device_code: str) -> DeviceCode | None:
    return rooms.database.read(lambda tx: tx.get(DeviceCode, device._digest(device_code)))


def test_the_codes(api: Api, rooms: Rooms):
    """Sections 3.2, 5.2 and 6.1: what the device gets, and how hard it is to guess."""
    body = begin(api)
    assert body.keys() == {
        "device_code",
        "user_code",
        "verification_uri",
        "verification_uri_complete",
        "expires_in",
        "interval",
    }
    assert re.fullmatch(r"dc_[A-Za-z0-9_-]{43}", body["device_code"])
    assert re.fullmatch(r"[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", body["user_code"])
    assert body["verification_uri"] == "http://127.0.0.1:8000/device"
    assert body["verification_uri_complete"] == f"{body['verification_uri']}?user_code={body['user_code']}"
    assert (body["expires_in"], body["interval"]) == (600, 5)
    assert len({begin(api)["user_code"] for _ in range(20)}) == 20
    # Neither code in the log, and the device code nowhere at all.
    rooms.trail.drain_all()
    log = rooms.database.read(lambda tx: tx.execute(select(*AuditEvent.__table__.columns)).all())
    row = row_of(rooms, body["device_code"])
    assert row is not None
    for code in (body["device_code"], body["user_code"], row.user_code):
        assert code not in str(log)
    assert body["device_code"] not in str(vars(row))
    issued = [event for event in log if event.event == "device_code:issued"]
    assert (len(issued), str(row.family_id) in {event.target for event in issued}) == (21, True)


def test_who_may_begin(api: Api, rooms: Rooms, confidential: tuple[str, str]):
    """Section 3.1: a client authenticates as at the token endpoint, and asks for what it may have."""

    def ask(auth: tuple[str, str] | None = None, **form: str) -> Any:
        return api.http.post("/oauth/device_authorization", data=form, auth=auth)

    refused(ask(scope="openid"), 401, "invalid_client")
    refused(ask(client_id="nobody"), 401, "invalid_client")
    refused(ask(client_id="backend"), 401, "invalid_client")
    refused(ask(confidential, scope="openid"), 400, "unauthorized_client")
    for scope in ("logs:read", "nonsense", "posts:create logs:read"):
        refused(ask(**TV, scope=scope), 400, "invalid_scope")
    refused(ask(**TV, resource="https://else.example"), 400, "invalid_target")
    refused(api.http.get("/oauth/device_authorization"), 405, "invalid_request")
    assert not rooms.database.read(lambda tx: tx.scalars(select(DeviceCode)).all())


def test_a_user_approves(api: Api, rooms: Rooms, ann: Browser):
    """Sections 3.3 to 3.5: from the code to the tokens, which are those of the user's sign-in."""
    codes = begin(api, scope="openid posts:create users:read", resource="https://posts.example")
    refused(poll(api, codes["device_code"]), 400, "authorization_pending")
    typed = codes["user_code"].lower().replace("-", " - ")  # section 6.1
    waiting = ann.enter(typed)
    assert waiting == device.Waiting(codes["user_code"], "tv", frozenset({"openid", "posts:create", "users:read"}))
    ann.devices.approve(typed, **ann.who)
    row = row_of(rooms, codes["device_code"])
    answer = granted(poll(api, codes["device_code"]))  # at once: only who has to wait can be too early
    assert answer.keys() == {
        "access_token",
        "token_type",
        "expires_in",
        "scope",
        "refresh_token",
        "id_token",
    }
    assert answer["scope"] == "openid posts:create"  # Ann can't read users
    access, identity = (
        jwt.decode(answer[name], options={"verify_signature": False}) for name in ("access_token", "id_token")
    )
    assert row is not None
    assert row.authenticated_at is not None
    expected = {"sub": str(ann.user_id), "auth_time": int(row.authenticated_at.timestamp()), "amr": ["pwd"]}
    for claims in (access, identity):
        assert {name: claims[name] for name in expected} == expected
    assert (access["aud"], access["client_id"]) == ("https://posts.example", "tv")
    assert access["fam"] == str(row.family_id)
    # A session of its own: the browser's logout ends it not, its own end does.
    own = rooms.database.read(lambda tx: tx.get(Session, UUID(access["sid"])))
    assert own is not None
    assert (own.id != ann.session_id, own.client_id, own.address) == (True, "tv", "192.0.2.7")
    rooms.feed.change(
        lambda tx, change: rooms.sessions.end(tx, change, session_id=ann.session_id, reason=EndReason.LOGOUT)
    )
    form = {"grant_type": "refresh_token", "refresh_token": answer["refresh_token"]}
    renewed = granted(api.token(**TV, **form))
    assert renewed["scope"] == answer["scope"]
    rooms.feed.change(
        lambda tx, change: rooms.sessions.end(tx, change, session_id=own.id, reason=EndReason.REVOKED)
    )
    refused(api.token(**TV, **form | {"refresh_token": renewed["refresh_token"]}), 400, "invalid_grant")
    rooms.trail.drain_all()
    log = rooms.database.read(lambda tx: tx.scalars(select(AuditEvent).order_by(AuditEvent.at)).all())
    story = [event.event for event in log if event.target == str(row.family_id)]
    assert story[:2] == ["device_code:issued", "device_code:approved"]
    assert {"device_code:denied"}.isdisjoint(story)
    issued = [event for event in log if event.event == "token:issued" and event.client_id == "tv"]
    assert [event.details["grant_type"] for event in issued] == [DEVICE_CODE, "refresh_token"]


def test_without_refresh_token_for_clients_that_have_no_use_for_one(api: Api, rooms: Rooms, ann: Browser):
    rooms.clients.create(
        client_id="radio",
        client_name="A radio",
        grant_types=[DEVICE_CODE],
        scope=["posts:create"],
        token_endpoint_auth_method="none",
    )
    codes = begin(api, client_id="radio")
    ann.approve(codes["user_code"])
    answer = granted(poll(api, codes["device_code"], client_id="radio"))
    assert answer.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert granted(api.me(answer["access_token"]))["username"] == "ann"
    rooms.feed.change(
        lambda tx, change: rooms.sessions.end(
            tx, change, session_id=row_session(answer["access_token"]), reason=EndReason.REVOKED
        )
    )
    refused(api.me(answer["access_token"]), 401, "invalid_token")


def row_session(access_token: str) -> UUID:
    return UUID(jwt.decode(access_token, options={"verify_signature": False})["sid"])


def test_who_polls_too_early_waits_longer_for_good(api: Api, rooms: Rooms, ann: Browser):
    """Section 3.5; F1."""
    code = begin(api)["device_code"]
    refused(poll(api, code), 400, "authorization_pending")
    refused(poll(api, code), 400, "slow_down")
    refused(poll(api, code), 400, "slow_down")
    row = row_of(rooms, code)
    assert row is not None
    assert row.interval == 15
    elapse(rooms, code, polled_at=utc_now() - timedelta(seconds=14))
    refused(poll(api, code), 400, "slow_down")
    elapse(rooms, code, polled_at=utc_now() - timedelta(seconds=20))
    refused(poll(api, code), 400, "authorization_pending")
    # Polls at the same moment count one by one.
    other = begin(api)["device_code"]
    with ThreadPoolExecutor(10) as pool:
        words = [word(response) for response in pool.map(lambda _: poll_alone(api, other), range(10))]
    assert sorted(words) == ["authorization_pending", *["slow_down"] * 9]
    row = row_of(rooms, other)
    assert row is not None
    assert row.interval == 5 + 9 * 5


def poll_alone(api: Api, code: str) -> Any:
    return poll(Api(api.http.application.test_client()), code)


def test_denied_stays_denied(api: Api, rooms: Rooms, ann: Browser):
    """Section 3.5; and no value in the row reads as approval."""
    codes = begin(api)
    ann.deny(codes["user_code"])
    for _ in range(2):
        refused(poll(api, codes["device_code"]), 400, "access_denied")
    assert ann.enter(codes["user_code"]) is None
    with pytest.raises(NotFound):
        ann.devices.approve(codes["user_code"], **ann.who)
    refused(poll(api, codes["device_code"]), 400, "access_denied")
    for status in ("", "0", "1", "true", "pending", "else"):
        elapse(rooms, codes["device_code"], status=status, polled_at=None)
        assert word(poll(api, codes["device_code"])) in {"authorization_pending", "slow_down"}, status


def test_expired(api: Api, rooms: Rooms, ann: Browser):
    """Section 3.5, approved or not; the user can't answer any more, and the row goes an hour later."""
    pending, approved = begin(api), begin(api)
    ann.approve(approved["user_code"])
    assert ann.enter(pending["user_code"])
    for codes in (pending, approved):
        elapse(rooms, codes["device_code"], expires_at=utc_now() - timedelta(seconds=1))
        refused(poll(api, codes["device_code"]), 400, "expired_token")
    assert ann.enter(pending["user_code"]) is None
    with pytest.raises(NotFound):
        ann.devices.approve(pending["user_code"], **ann.who)
    assert ann.devices.purge() == 0
    elapse(rooms, pending["device_code"], expires_at=utc_now() - timedelta(hours=1, seconds=1))
    assert ann.devices.purge() == 1
    refused(poll(api, pending["device_code"]), 400, "invalid_grant")
    refused(poll(api, approved["device_code"]), 400, "expired_token")


def test_once_and_for_its_client_alone(api: Api, rooms: Rooms, ann: Browser):
    """Section 3.4; F2. Who comes second ends nothing of what the first one got."""
    rooms.clients.create(
        client_id="other", client_name="Other", grant_types=[DEVICE_CODE], token_endpoint_auth_method="none"
    )
    codes = begin(api)
    ann.approve(codes["user_code"])
    refused(poll(api, codes["device_code"], client_id="other"), 400, "invalid_grant")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: poll_alone(api, codes["device_code"]), range(20)))
    assert sorted(map(word, answers)) == ["", *["invalid_grant"] * 19]
    first = next(answer.json for answer in answers if answer.status_code == 200)
    refused(poll(api, codes["device_code"]), 400, "invalid_grant")
    granted(api.token(**TV, grant_type="refresh_token", refresh_token=first["refresh_token"]))
    tokens = rooms.database.read(lambda tx: tx.scalars(select(Session).where(Session.client_id == "tv")).all())
    assert len(tokens) == 1


@pytest.mark.parametrize("what", ["disabled user", "ended session", "deleted client", "changed registration"])
def test_refused_when_what_it_stands_on_has_ended(api: Api, rooms: Rooms, ann: Browser, what: str):
    """Who approved must still be there, and so must the client (Keycloak CVE-2025-14559 and its kind)."""
    codes = begin(api)
    ann.approve(codes["user_code"])
    expected = (400, "invalid_grant")
    if what == "disabled user":
        admin = bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])
        path = f"/users/{ann.user_id}/status"
        granted(api.http.put(path, json={"status": "disabled"}, headers=admin))
    elif what == "ended session":
        rooms.feed.change(
            lambda tx, change: rooms.sessions.end(tx, change, session_id=ann.session_id, reason=EndReason.LOGOUT)
        )
    elif what == "deleted client":
        rooms.feed.change(lambda tx, change: rooms.clients.delete(tx, change, "tv"))
        expected = (401, "invalid_client")
    else:
        row = rooms.clients.get("tv")
        narrower = Metadata(
            client_name="A television",
            grant_types=["password"],
            scope=row.scope.split(),
            token_endpoint_auth_method="none",
        )
        rooms.feed.change(lambda tx, change: rooms.clients.update(tx, change, "tv", narrower))
        expected = (400, "unauthorized_client")
    refused(poll(api, codes["device_code"]), *expected)
    kept = rooms.database.read(lambda tx: tx.scalars(select(Session).where(Session.client_id == "tv")).all())
    assert not kept


def test_the_answer_is_bound_to_who_entered_the_code(
    api: Api, rooms: Rooms, ann: Browser, browser_of: Callable[[str], Browser]
):
    """Section 5.4; F4 (django-oauth-toolkit #1819): not without the code step, not by somebody else, and not in
    another browser."""
    eve = browser_of("eve")
    code = begin(api)["user_code"]
    for answer in (ann.devices.approve, ann.devices.deny):
        with pytest.raises(NotFound) as refusal:
            answer(code, **ann.who)
        assert refusal.value.code == NO_DEVICE
    ann.enter(code)
    for other in (eve.who, eve.who | {"user_id": ann.user_id}, eve.who | {"session_id": ann.session_id}):
        for answer in (ann.devices.approve, ann.devices.deny):
            with pytest.raises(NotFound):
                answer(code, **other)
    eve.enter(code)  # and then Ann's page is worth nothing any more
    with pytest.raises(NotFound):
        ann.devices.approve(code, **ann.who)
    rooms.feed.change(
        lambda tx, change: rooms.sessions.end(tx, change, session_id=eve.session_id, reason=EndReason.LOGOUT)
    )
    with pytest.raises(NotFound):
        eve.devices.approve(code, **eve.who)


def test_user_codes_cannot_be_guessed(api: Api, ann: Browser, browser_of: Callable[[str], Browser]):
    """Section 5.1; F3, E36: ten wrong ones, then a wait; the right ones don't count."""
    eve = browser_of("eve")
    code = begin(api)["user_code"]
    for wrong in ("", "B", "BBBB-BBBB", f"{code}B", f"B{code}", code[:-1], "%", "_" * 8, "\u2160" * 8, "x" * 100):
        for _ in range(3):
            assert ann.enter(code)
        assert ann.enter(wrong) is None, wrong
    for guess in ("BBBB-BBBB", code):
        with pytest.raises(TooManyRequests) as refusal:
            ann.enter(guess)
        assert refusal.value.retry_after > 30
    with pytest.raises(TooManyRequests):
        eve.enter(code)  # from the same network
