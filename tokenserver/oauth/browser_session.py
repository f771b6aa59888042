"""Who is signed in to this server in a browser: the session behind its cookie (OIDC Core section 3.1.2.3)."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Select, select, update

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.clients.registry import FIRST_PARTY
from tokenserver.config import Settings
from tokenserver.errors import Unauthenticated
from tokenserver.identity.login import Proof, Refusal
from tokenserver.identity.people import People
from tokenserver.storage.feed import Change, Feed
from tokenserver.storage.sql import Transaction, utc_now
from tokenserver.tokens.models import Session
from tokenserver.tokens.revocation import Revocation
from tokenserver.tokens.sessions import EndReason, Sessions, SignIn
from tokenserver.web.cookies import new_cookie
from tokenserver.web.request_context import current

# So often a session's last use is written down.
USE_WRITTEN_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class SignedIn:
    """`authenticated_at`, `amr`: of the last time that the user proved who they are."""

    session_id: UUID
    user_id: UUID
    authenticated_at: datetime
    amr: tuple[str, ...]

    @classmethod
    def of(cls, row: Session) -> "SignedIn":
        return cls(row.id, row.user_id, row.authenticated_at, tuple(row.amr))


class BrowserSessions:
    def __init__(
        self, feed: Feed, people: People, sessions: Sessions, revocation: Revocation, settings: Settings
    ) -> None:
        self._feed = feed
        self._people = people
        self._sessions = sessions
        self._revocation = revocation
        self._lifetime = settings.browser_session_ttl
        self._idle_lifetime = timedelta(seconds=settings.browser_session_idle_ttl)

    def find(self, cookie: str | None) -> SignedIn | None:
        """As of now; None also for who was away for too long. Writes down that the session is used.

        Raises StoreUnavailable: the caller must refuse, never guess.
        """
        if cookie is None:
            return None
        self._feed.sync()
        row = self._feed.database.read(lambda tx: tx.scalar(_live(cookie)))
        person = self._people.find(row.user_id) if row else None
        if row is None or person is None or not person.is_active or self._is_cut_off(row):
            return None
        now, used_at = utc_now(), row.used_at or row.created_at
        if now - used_at >= self._idle_lifetime:
            return None
        if now - used_at >= timedelta(seconds=USE_WRITTEN_SECONDS):
            used = update(Session).where(Session.id == row.id, Session.used_at == row.used_at).values(used_at=now)
            self._feed.database.write(lambda tx: tx.execute(used))
        return SignedIn.of(row)

    def sign_in(self, proof: Proof, cookie: str | None) -> tuple[str, SignedIn]:
        """A new cookie, whatever the browser sent, and the session behind it.

        The same user, still signed in or only away for too long, goes on in the same session; what else the browser
        was signed in to ends. Raises Unauthenticated `invalid_credentials` when the proof no longer holds.
        """
        user_id, amr = proof.user.id, proof.amr
        current().actor = str(user_id)
        self._feed.sync()

        def start(tx: Transaction, change: Change) -> tuple[str, SignedIn]:
            if not proof.holds(tx):
                raise Unauthenticated("The name or the password is wrong.", code=Refusal.INVALID_CREDENTIALS.value)
            fresh = new_cookie()  # OWASP ASVS 7.2.4
            row = tx.scalar(_live(cookie).with_for_update()) if cookie else None
            if row is not None and row.user_id == user_id and not self._is_cut_off(row):
                row.cookie_digest = _digest(fresh)
                row.authenticated_at = row.used_at = utc_now()
                row.amr = list(amr)
                record(tx, Event.SESSION_REAUTHENTICATED, target=row.id, user=str(user_id), amr=list(amr))
                return fresh, SignedIn.of(row)
            if row is not None:
                self._sessions.end(tx, change, session_id=row.id, reason=EndReason.LOGOUT)
            context = current()
            sign_in = SignIn(user_id, FIRST_PARTY, amr, context.address, context.user_agent)
            session = self._sessions.start(tx, sign_in, lifetime=self._lifetime, cookie_digest=_digest(fresh))
            return fresh, SignedIn.of(session)

        return self._feed.change(start)

    def sign_out(self, cookie: str | None) -> SignedIn | None:
        """End the session with all that was issued in it, in every process; what ended, if anything did."""
        if cookie is None:
            return None

        def end(tx: Transaction, change: Change) -> SignedIn | None:
            row = tx.scalar(_live(cookie).with_for_update())
            if row is None:
                return None
            current().actor = str(row.user_id)
            self._sessions.end(tx, change, session_id=row.id, reason=EndReason.LOGOUT)
            return SignedIn.of(row)

        return self._feed.change(end)

    def _is_cut_off(self, row: Session) -> bool:
        """As of the last `Feed.sync`."""
        proved_at = int(row.authenticated_at.timestamp() * 1000)
        return self._revocation.is_revoked(issued_at=proved_at, user_id=row.user_id, session_id=row.id)


def _live(cookie: str) -> Select[tuple[Session]]:
    digest = _digest(cookie)
    return select(Session).where(
        Session.cookie_digest == digest, Session.ended_at.is_(None), Session.expires_at > utc_now()
    )


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()
