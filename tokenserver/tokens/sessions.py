"""Sessions: one sign-in of a user each, with the refresh families in it; their start and every way they end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.storage.feed import Change, Feed, Kind
from tokenserver.storage.sql import Transaction, new_id, utc_now
from tokenserver.tokens.models import LogoutDelivery, RefreshFamily, Session, SessionClient
from tokenserver.tokens.refresh_family import Family

# So long an operator can see how a session ended.
ENDED_KEPT_DAYS: Final = 30


class EndReason(StrEnum):
    LOGOUT = "logout"
    REVOKED = "revoked"
    REFRESH_TOKEN_REUSED = "refresh_token_reused"
    PASSWORD_CHANGED = "password_changed"
    USER_DISABLED = "user_disabled"
    CLIENT_DELETED = "client_deleted"
    CODE_REPLAYED = "code_replayed"
    CONSENT_WITHDRAWN = "consent_withdrawn"
    EMERGENCY = "emergency"


@dataclass(frozen=True)
class SignIn:
    """How a user proved who they are, and from where. `amr`: RFC 8176 values."""

    user_id: UUID
    client_id: str
    amr: tuple[str, ...]
    address: str | None = None
    user_agent: str | None = None


class Sessions:
    """`lifetime`, `idle_lifetime` in s: of refresh tokens, and of the sessions that hold them."""

    def __init__(self, feed: Feed, *, lifetime: int, idle_lifetime: int) -> None:
        self._feed = feed
        self._lifetime = lifetime
        self._idle_lifetime = idle_lifetime

    def start(
        self, tx: Transaction, sign_in: SignIn, *, lifetime: int | None = None, cookie_digest: bytes | None = None
    ) -> Session:
        """`lifetime` in s: that of refresh tokens when not given. `cookie_digest`: of the browser that signs in."""
        now = utc_now()
        session = Session(
            id=new_id(),
            user_id=sign_in.user_id,
            client_id=sign_in.client_id,
            authenticated_at=now,
            amr=list(sign_in.amr),
            created_at=now,
            expires_at=now + timedelta(seconds=self._lifetime if lifetime is None else lifetime),
            address=sign_in.address,
            user_agent=sign_in.user_agent,
            cookie_digest=cookie_digest,
            used_at=None if cookie_digest is None else now,
        )
        tx.add(session)
        tx.flush()
        record(tx, Event.SESSION_STARTED, target=session.id, user=str(sign_in.user_id))
        return session

    def start_offline(
        self,
        tx: Transaction,
        session: Session,
        *,
        session_id: UUID,
        client_id: str,
        authenticated_at: datetime,
        amr: Sequence[str],
    ) -> Session:
        """A session for the tokens of one client that outlive the browser's (`offline_access`, OIDC Core section
        11; Back-Channel Logout section 2.7). It descends from the sign-in of `session`."""
        now = utc_now()
        offline = Session(
            id=session_id,
            user_id=session.user_id,
            client_id=client_id,
            authenticated_at=authenticated_at,
            amr=list(amr),
            created_at=now,
            expires_at=now + timedelta(seconds=self._lifetime),
            address=session.address,
            user_agent=session.user_agent,
        )
        tx.add(offline)
        tx.flush()
        record(tx, Event.SESSION_STARTED, target=offline.id, user=str(session.user_id), offline=True)
        return offline

    def start_family(
        self,
        tx: Transaction,
        session: Session,
        *,
        client_id: str,
        scope: str | None,
        audience: Sequence[str],
        family_id: UUID | None = None,
        authenticated_at: datetime | None = None,
        amr: Sequence[str] | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> tuple[Family, datetime]:
        """A family and the moment of its first generation; `RefreshTokens.publish` them after the commit.

        `family_id`: where tokens were issued under it already. `authenticated_at`, `amr`: of the sign-in that it
        descends from, where that is not the session's last. `claims`: asked for by name.
        """
        now = utc_now()
        row = RefreshFamily(
            id=family_id or new_id(),
            session_id=session.id,
            user_id=session.user_id,
            client_id=client_id,
            scope=scope,
            audience=list(audience),
            idle_lifetime=self._idle_lifetime,
            created_at=now,
            expires_at=session.expires_at,
            generation=1,
            rotated_at=now,
            authenticated_at=authenticated_at or session.authenticated_at,
            amr=list(session.amr if amr is None else amr),
            claims=None if claims is None else dict(claims),
        )
        tx.add(row)
        return Family.from_rows(row, session), now

    @staticmethod
    def join(tx: Transaction, session_id: UUID, client_id: str) -> bool:
        """The client takes part in the session: it will be told when it ends. In the transaction that issues the
        first code or token; False: the session has ended or the client was deleted meanwhile, and nothing may be
        issued to it."""
        # Shared with other clients, but whoever ends the session waits for this, and sees who joined.
        live = select(Session.id).where(Session.id == session_id, Session.ended_at.is_(None))
        if tx.scalar(live.with_for_update(read=True)) is None:
            return False
        if tx.get(SessionClient, (session_id, client_id)) is None:
            try:
                with tx.begin_nested():
                    tx.add(SessionClient(session_id=session_id, client_id=client_id, created_at=utc_now()))
            except IntegrityError:  # it joined by another request just now, or it was deleted
                return tx.get(SessionClient, (session_id, client_id)) is not None
        return True

    # Ending

    def end(
        self,
        tx: Transaction,
        change: Change,
        *,
        reason: EndReason,
        user_id: UUID | None = None,
        session_id: UUID | None = None,
        family_id: UUID | None = None,
        client_id: str | None = None,
        keep: UUID | None = None,
    ) -> int:
        """End all sessions and families that match; how many families and sessions were live.

        The one function behind logout, revocation, reuse, changed passwords and disabled accounts. Commit it with
        `Feed.change`: it holds in every process before the change is answered. `keep`: a session to spare.
        The clients that took part in a session which ends will be told (`LogoutDelivery`); of a family's end, none.
        """
        families: list[ColumnElement[bool]] = [RefreshFamily.ended_at.is_(None)]
        sessions: list[ColumnElement[bool]] = [Session.ended_at.is_(None)]
        if user_id is not None:
            families.append(RefreshFamily.user_id == user_id)
            sessions.append(Session.user_id == user_id)
        if session_id is not None:
            families.append(RefreshFamily.session_id == session_id)
            sessions.append(Session.id == session_id)
        if keep is not None:
            families.append(RefreshFamily.session_id != keep)
            sessions.append(Session.id != keep)
        if family_id is not None:
            families.append(RefreshFamily.id == family_id)
        if client_id is not None:
            families.append(RefreshFamily.client_id == client_id)

        fields = {"ended_at": utc_now(), "end_reason": reason.value}
        # Found and ended in one statement: of two who end the same at once, one finds it, and records it.
        end_families = update(RefreshFamily).where(*families).values(fields)
        ended = tx.execute(end_families.returning(RefreshFamily.id, RefreshFamily.session_id)).all()
        if family_id is not None or client_id is not None:
            # A session ends with the last of its families; a browser's doesn't, whatever its clients give back.
            sessions.append(Session.id.in_(self._left_empty(tx, ended, client_id)))
            sessions.append(Session.cookie_digest.is_(None))
        gone = tx.scalars(update(Session).where(*sessions).values(fields).returning(Session.id)).all()
        for family, session in ended:
            change.note(Kind.FAMILY, family)
            if session not in gone:
                record(tx, Event.REFRESH_TOKEN_REVOKED, target=family, reason=reason.value)
        for session in gone:
            change.note(Kind.SESSION, session)
            record(tx, Event.SESSION_ENDED, target=session, reason=reason.value)
        self._announce(tx, Session.id.in_(gone))
        return len(ended) + len(gone)

    def end_user(self, tx: Transaction, change: Change, user_id: UUID, reason: EndReason) -> int:
        """All that was ever issued to a user, with every session; like `end`.

        The one way to cut a user off: the revocation list has their sessions and not their cutoff (ADR 0025).
        """
        change.note(Kind.USER, user_id)
        return self.end(tx, change, user_id=user_id, reason=reason)

    def end_all(self, tx: Transaction, change: Change, reason: EndReason = EndReason.EMERGENCY) -> int:
        """Everybody signs in again, in every browser too; how many sessions were live.

        They may be many: it is one note and one event, however many. The note alone would not do, since it is
        forgotten when the last token it is about has expired, and a session lives longer than that.
        """
        change.note(Kind.EVERYTHING)
        fields = {"ended_at": utc_now(), "end_reason": reason.value}
        tx.execute(update(RefreshFamily).where(RefreshFamily.ended_at.is_(None)).values(fields))
        ended = tx.execute(update(Session).where(Session.ended_at.is_(None)).returning(Session.id).values(fields))
        count = len(ended.all())
        # Only now are the rows locked, and nobody joins any more.
        self._announce(tx, and_(*(getattr(Session, name) == value for name, value in fields.items())))
        record(tx, Event.SESSION_ENDED, reason=reason.value, sessions=count)
        return count

    @staticmethod
    def _announce(tx: Transaction, ended: ColumnElement[bool]) -> None:
        """In the transaction of the end: neither is there without the other."""
        taking_part = select(Session.id, Session.user_id, SessionClient.client_id).join(
            SessionClient, SessionClient.session_id == Session.id
        )
        told = tx.execute(taking_part.where(ended)).all()
        if told:
            now = utc_now()
            at = {"attempts": 0, "due_at": now, "created_at": now}
            rows = [
                {"id": new_id(), "session_id": session, "user_id": user, "client_id": client, **at}
                for session, user, client in told
            ]
            tx.execute(insert(LogoutDelivery), rows)

    @staticmethod
    def _left_empty(tx: Transaction, ended: Sequence[Row[tuple[UUID, UUID]]], client_id: str | None) -> set[UUID]:
        """The sessions, of the families that end, in which no other is live; and a client's that never had one."""
        within = {session for _, session in ended}
        others = select(RefreshFamily.session_id).where(
            RefreshFamily.session_id.in_(within),
            RefreshFamily.ended_at.is_(None),
            RefreshFamily.id.not_in([family for family, _ in ended]),
        )
        empty = within - set(tx.scalars(others))
        if client_id is not None:
            without = select(Session.id).outerjoin(RefreshFamily, RefreshFamily.session_id == Session.id)
            empty |= set(tx.scalars(without.where(Session.client_id == client_id, RefreshFamily.id.is_(None))))
        return empty

    def end_reused(self, family_id: UUID) -> None:
        """A consumed refresh token came back: somebody else has a copy (RFC 9700 section 4.14.2)."""

        def end(tx: Transaction, change: Change) -> None:
            change.note(Kind.FAMILY, family_id)
            if self.end(tx, change, family_id=family_id, reason=EndReason.REFRESH_TOKEN_REUSED):
                record(tx, Event.REFRESH_TOKEN_REUSED, target=family_id, outcome="denied")

        self._feed.change(end)

    def purge(self, limit: int = 500) -> int:
        """Delete sessions, with their families, that expired, or ended a month ago; at most `limit`; how many.

        Not before the last access token of a session has expired: with its user it ends for those who verify by the
        revocation list too.
        """

        def old(tx: Transaction) -> int:
            now = utc_now()
            dead = now - timedelta(milliseconds=self._feed.retention_ms)
            query = select(Session.id).where(
                (Session.expires_at < dead) | (Session.ended_at < now - timedelta(days=ENDED_KEPT_DAYS))
            )
            ids = tx.scalars(query.limit(limit)).all()
            tx.execute(delete(RefreshFamily).where(RefreshFamily.session_id.in_(ids)))
            tx.execute(delete(Session).where(Session.id.in_(ids)))
            return len(ids)

        return self._feed.database.write(old)

    # Reading

    def of_user(
        self, user_id: UUID, *, limit: int, before: tuple[datetime, UUID] | None = None
    ) -> list[tuple[Session, datetime]]:
        """Live sessions, newest first, each with the moment it was last used."""
        return self.live(user_id, limit=limit, before=before)

    def live(
        self, user_id: UUID | None = None, *, limit: int, before: tuple[datetime, UUID] | None = None
    ) -> list[tuple[Session, datetime]]:
        """Like `of_user`, or of everybody."""

        def read(tx: Transaction) -> list[tuple[Session, datetime]]:
            now = utc_now()
            query = (
                select(Session, func.max(RefreshFamily.rotated_at))
                .outerjoin(RefreshFamily, RefreshFamily.session_id == Session.id)
                .where(Session.ended_at.is_(None), Session.expires_at > now)
                .group_by(Session.id)
                .order_by(Session.created_at.desc(), Session.id.desc())
                .limit(limit)
            )
            if user_id is not None:
                query = query.where(Session.user_id == user_id)
            if before is not None:
                at, last = before
                query = query.where((Session.created_at < at) | ((Session.created_at == at) & (Session.id < last)))
            return [
                (session, max(filter(None, (rotated_at, session.used_at, session.created_at))))
                for session, rotated_at in tx.execute(query)
            ]

        return self._feed.database.read(read)

    def clients_of(self, session_id: UUID) -> list[str]:
        """Who took part in a session, which may have ended; in the order in which they joined."""
        query = select(SessionClient.client_id).where(SessionClient.session_id == session_id)
        ordered = query.order_by(SessionClient.created_at, SessionClient.client_id)
        return list(self._feed.database.read(lambda tx: tx.scalars(ordered).all()))

    @staticmethod
    def live_ids(tx: Transaction, *, user_id: UUID | None = None, session_id: UUID | None = None) -> list[UUID]:
        query = select(Session.id).where(Session.ended_at.is_(None), Session.expires_at > utc_now())
        if user_id is not None:
            query = query.where(Session.user_id == user_id)
        if session_id is not None:
            query = query.where(Session.id == session_id)
        return list(tx.scalars(query))
