"""Who is signed in in a browser: how it begins, goes on, and every way it ends (OIDC Core section 3.1.2.3)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from tests.conftest import PASSWORD, Api, Apps, bearer
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.errors import StoreUnavailable, Unauthenticated
from tokenserver.identity.login import Proof
from tokenserver.identity.people import ACTIVE, DISABLED
from tokenserver.oauth.browser_session import SignedIn
from tokenserver.rooms import Rooms
from tokenserver.storage.feed import Kind
from tokenserver.storage.sql import utc_now
from tokenserver.tokens.models import Session
from tokenserver.tokens.sessions import EndReason
from tokenserver.web.cookies import new_cookie


def proof_of(rooms: Rooms, login: str = "ann", password: str = PASSWORD) -> Proof:
    proof = rooms.login.authenticate(login, password)
    assert isinstance(proof, Proof)
    return proof


def signed_in(rooms: Rooms, login: str = "ann", cookie: str | None = None) -> tuple[str, SignedIn]:
    return rooms.browser_sessions.sign_in(proof_of(rooms, login), cookie)


def rows(rooms: Rooms) -> dict[UUID, Session]:
    return {row.id: row for row in rooms.database.read(lambda tx: tx.scalars(select(Session)).all())}


def age(rooms: Rooms, column: str, seconds: float) -> None:
    """Move a moment of every browser's session back."""

    def move(tx: Any) -> None:
        for row in tx.scalars(select(Session).where(Session.cookie_digest.is_not(None))):
            tx.execute(
                update(Session)
                .where(Session.id == row.id)
                .values({column: getattr(row, column) - timedelta(seconds=seconds)})
            )

    rooms.database.write(move)


def events(rooms: Rooms, name: str) -> list[AuditEvent]:
    rooms.trail.drain_all()
    return list(
        rooms.database.read(lambda tx: tx.scalars(select(AuditEvent).where(AuditEvent.event == name)).all())
    )


def test_a_cookie_is_new_at_every_sign_in_and_never_adopted(api: Api, rooms: Rooms):
    """OWASP ASVS 7.2.3 and 7.2.4; CVE-2026-7507 (fixation): a planted cookie stays worthless."""
    api.register()
    planted = new_cookie()
    first, session = signed_in(rooms, cookie=planted)
    assert first != planted
    assert len(first) == 43  # 256 bits
    assert rooms.browser_sessions.find(planted) is None
    assert rooms.browser_sessions.find(first) == session
    assert rows(rooms)[session.session_id].client_id == "first-party"

    age(rooms, "authenticated_at", 100)
    second, again = signed_in(rooms, cookie=first)
    assert second not in {planted, first}
    # The same session goes on: its sid is known to clients.
    assert (again.session_id, again.user_id) == (session.session_id, session.user_id)
    assert again.authenticated_at > session.authenticated_at - timedelta(seconds=1)
    assert rooms.browser_sessions.find(first) is None
    assert rooms.browser_sessions.find(second) == again
    assert [event.target for event in events(rooms, "session:reauthenticated")] == [str(session.session_id)]
    assert len(events(rooms, "session:started")) == 1


def test_another_user_in_the_same_browser_ends_the_session_of_the_first(api: Api, rooms: Rooms):
    api.register("ann")
    api.register("bob")
    first, anns = signed_in(rooms, "ann")
    second, bobs = signed_in(rooms, "bob", first)
    assert anns.session_id != bobs.session_id
    assert rooms.browser_sessions.find(first) is None
    found = rooms.browser_sessions.find(second)
    assert found is not None
    assert found.user_id == bobs.user_id
    assert rows(rooms)[anns.session_id].end_reason == "logout"


def test_it_ends_when_the_browser_was_away_and_in_any_case_after_its_lifetime(api: Api, rooms: Rooms):
    """OWASP ASVS 7.3.1 and 7.3.2."""
    api.register()
    idle = rooms.settings.browser_session_idle_ttl
    cookie, session = signed_in(rooms)
    age(rooms, "used_at", idle - 5)
    assert rooms.browser_sessions.find(cookie)  # and counts as a use
    age(rooms, "used_at", idle - 5)
    assert rooms.browser_sessions.find(cookie)
    age(rooms, "used_at", idle + 1)
    assert rooms.browser_sessions.find(cookie) is None
    # The user proves again who they are; what their clients hold goes on.
    cookie, again = signed_in(rooms, cookie=cookie)
    assert again.session_id == session.session_id
    assert rooms.browser_sessions.find(cookie) == again

    row = rows(rooms)[session.session_id]
    assert row.expires_at - row.created_at == timedelta(seconds=rooms.settings.browser_session_ttl)
    age(rooms, "expires_at", rooms.settings.browser_session_ttl + 1)
    assert rooms.browser_sessions.find(cookie) is None
    _, fresh = signed_in(rooms, cookie=cookie)
    assert fresh.session_id != session.session_id


def test_a_use_is_written_down_once_a_minute(api: Api, rooms: Rooms, app: Any, queries: Callable[..., Any]):
    api.register()
    cookie, session = signed_in(rooms)
    rooms.browser_sessions.find(cookie)
    before = rows(rooms)[session.session_id].used_at
    with queries(app) as counter:
        rooms.browser_sessions.find(cookie)
    assert counter.count <= 2  # BEGIN and SELECT
    assert rows(rooms)[session.session_id].used_at == before
    age(rooms, "used_at", 61)
    rooms.browser_sessions.find(cookie)
    used_at = rows(rooms)[session.session_id].used_at
    assert used_at is not None
    assert utc_now() - used_at < timedelta(seconds=30)


def sign_out(rooms: Rooms, api: Api, cookie: str, session: SignedIn) -> None:
    assert rooms.browser_sessions.sign_out(cookie) == session
    assert rooms.browser_sessions.sign_out(cookie) is None


def change_password(rooms: Rooms, api: Api, cookie: str, session: SignedIn) -> None:
    body = {"password": "another horse 8 battery", "current_password": PASSWORD}
    response = api.http.put("/users/me", json=body, headers=bearer(api.login()["access_token"]))
    assert response.status_code == 200


def reset_password(rooms: Rooms, api: Api, cookie: str, session: SignedIn) -> None:
    """As `tokenserver user reset-password` does."""
    reason = EndReason.PASSWORD_CHANGED
    rooms.feed.change(lambda tx, change: rooms.sessions.end(tx, change, user_id=session.user_id, reason=reason))


def disable(rooms: Rooms, api: Api, cookie: str, session: SignedIn) -> None:
    rooms.feed.change(
        lambda tx, change: rooms.people.set_status(tx, change, session.user_id, DISABLED, rooms.sessions)
    )


def cut_the_user_off(rooms: Rooms, api: Api, cookie: str, session: SignedIn) -> None:
    rooms.feed.change(lambda tx, change: change.note(Kind.USER, session.user_id))


def emergency(rooms: Rooms, api: Api, cookie: str, session: SignedIn) -> None:
    rooms.feed.change(rooms.sessions.end_all)


def end_it_elsewhere(rooms: Rooms, api: Api, cookie: str, session: SignedIn) -> None:
    path = f"/users/me/sessions/{session.session_id}"
    assert api.http.delete(path, headers=bearer(api.login()["access_token"])).status_code == 204


@pytest.mark.parametrize(
    "how",
    [sign_out, change_password, reset_password, disable, cut_the_user_off, emergency, end_it_elsewhere],
    ids=lambda how: how.__name__,
)
def test_what_ends_a_session_ends_it_in_every_process(
    apps: Apps, api_of: Callable[..., Api], how: Callable[..., None]
):
    """OWASP ASVS 7.4.1 and 7.4.2; RFC 9700 section 4.14."""
    here, there = apps(), apps()
    api = api_of(here)
    api.register()
    cookie, session = signed_in(rooms_of(here))
    assert rooms_of(there).browser_sessions.find(cookie) == session
    how(rooms_of(here), api, cookie, session)
    for process in (there, here, apps()):
        assert rooms_of(process).browser_sessions.find(cookie) is None
    if how is cut_the_user_off:
        # It is another session that the same user starts in this browser then.
        _, fresh = signed_in(rooms_of(there), cookie=cookie)
        assert fresh.session_id != session.session_id
        assert rows(rooms_of(there))[session.session_id].ended_at is not None
    if how is disable:
        rooms = rooms_of(there)
        rooms.feed.change(
            lambda tx, change: rooms.people.set_status(tx, change, session.user_id, ACTIVE, rooms.sessions)
        )
        assert rooms.browser_sessions.find(cookie) is None


def test_a_proof_from_before_a_new_password_signs_nobody_in(api: Api, rooms: Rooms):
    api.register()
    proof = proof_of(rooms)
    body = {"password": "another horse 8 battery", "current_password": PASSWORD}
    assert api.http.put("/users/me", json=body, headers=bearer(api.login()["access_token"])).status_code == 200
    with pytest.raises(Unauthenticated) as refusal:
        rooms.browser_sessions.sign_in(proof, None)
    assert refusal.value.code == "invalid_credentials"


def test_what_a_client_gives_back_signs_no_browser_out(api: Api, rooms: Rooms):
    """RFC 7009: the last refresh token of a session is revoked; the browser's session goes on."""
    api.register()
    cookie, signed = signed_in(rooms)

    def family(tx: Any) -> UUID:
        session = tx.get(Session, signed.session_id)
        return rooms.sessions.start_family(tx, session, client_id="first-party", scope="openid", audience=["x"])[
            0
        ].id

    family_id = rooms.database.write(family)
    reason = EndReason.REVOKED
    rooms.feed.change(lambda tx, change: rooms.sessions.end(tx, change, family_id=family_id, reason=reason))
    assert rooms.browser_sessions.find(cookie) == signed


def test_the_owner_sees_it_with_its_last_use(api: Api, rooms: Rooms):
    tokens = api.signed_in()
    cookie, signed = signed_in(rooms)
    age(rooms, "created_at", 400)
    age(rooms, "used_at", 200)
    listed = api.http.get("/users/me/sessions", headers=bearer(tokens["access_token"])).json["items"]
    mine = next(item for item in listed if item["id"] == str(signed.session_id))
    used_at = rows(rooms)[signed.session_id].used_at
    assert used_at is not None
    assert mine["last_used_at"] == used_at.isoformat()
    assert not mine["current"]
    assert rooms.browser_sessions.find(cookie)


def test_without_redis_nobody_is_taken_for_signed_in(api: Api, apps: Apps, own_redis: Any):
    rooms = rooms_of(apps(redis_url=own_redis.url()))
    api.register()
    cookie, _ = signed_in(rooms)
    own_redis.stop()
    with pytest.raises(StoreUnavailable):
        rooms.browser_sessions.find(cookie)
