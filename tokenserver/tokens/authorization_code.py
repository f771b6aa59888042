"""Authorization codes (RFC 6749 section 4.1.2): issued to be spent once, within a minute."""

import hashlib
import secrets
from datetime import timedelta
from typing import Any, Final, cast

from sqlalchemy import CursorResult, delete, select, update

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.storage.feed import Change, Feed, Kind
from tokenserver.storage.sql import Transaction, utc_now
from tokenserver.tokens.models import AuthorizationCode
from tokenserver.tokens.sessions import EndReason, Sessions

PREFIX: Final = "ac_"
# RFC 6749 section 4.1.2 allows ten minutes; FAPI 2.0 section 5.3.2.1 and OWASP ASVS 10.4.3 one.
LIFETIME_SECONDS: Final = 60
# A spent code is kept for so long, since one that is used again is a sign that it was stolen.
KEPT_HOURS: Final = 24


def generate() -> str:
    """256 bits; no other kind of secret of this server begins like it."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()


class AuthorizationCodes:
    """The truth about a code is its row: Redis, which may forget, is not asked."""

    def __init__(self, feed: Feed, sessions: Sessions) -> None:
        self._feed = feed
        self._sessions = sessions

    @staticmethod
    def add(tx: Transaction, code: str, **granted: Any) -> None:
        """`granted`: the columns of `AuthorizationCode` beside its digest and its times."""
        now = utc_now()
        expires_at = now + timedelta(seconds=LIFETIME_SECONDS)
        tx.add(AuthorizationCode(digest=digest(code), created_at=now, expires_at=expires_at, **granted))
        record(
            tx,
            Event.AUTHORIZATION_CODE_ISSUED,
            target=granted["user_id"],
            client=granted["client_id"],
            scope=granted["scope"],
            session=str(granted["session_id"]),
        )

    def find(self, code: str) -> AuthorizationCode | None:
        query = select(AuthorizationCode).where(AuthorizationCode.digest == digest(code))
        return self._feed.database.read(lambda tx: tx.scalar(query))

    @staticmethod
    def spend(tx: Transaction, code: AuthorizationCode) -> bool:
        """Of all who try at once one gets True. Commit it with what the code is spent for."""
        unspent = (AuthorizationCode.digest == code.digest, AuthorizationCode.used_at.is_(None))
        result = tx.execute(update(AuthorizationCode).where(*unspent).values(used_at=utc_now()))
        return cast("CursorResult[Any]", result).rowcount == 1

    def end_replayed(self, code: AuthorizationCode) -> None:
        """A code that was used again: all tokens that came of it end (RFC 6749 sections 4.1.2 and 10.5)."""

        def end(tx: Transaction, change: Change) -> None:
            # Its access tokens too, and where no refresh token was issued there is no row that would say so.
            change.note(Kind.FAMILY, code.family_id)
            self._sessions.end(tx, change, family_id=code.family_id, reason=EndReason.CODE_REPLAYED)
            record(tx, Event.AUTHORIZATION_CODE_REPLAYED, target=code.family_id, outcome="denied")

        self._feed.change(end)

    def purge(self, limit: int = 1000) -> int:
        """Delete what expired long ago, at most `limit`; how many."""

        def old(tx: Transaction) -> int:
            before = utc_now() - timedelta(hours=KEPT_HOURS)
            digests = tx.scalars(
                select(AuthorizationCode.digest).where(AuthorizationCode.expires_at < before).limit(limit)
            ).all()
            tx.execute(delete(AuthorizationCode).where(AuthorizationCode.digest.in_(digests)))
            return len(digests)

        return self._feed.database.write(old)
