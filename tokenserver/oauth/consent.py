"""Consent: what a user let a client have, for each user, client and scope (OIDC Core section 3.1.2.4)."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.clients.metadata import CLIENT_ID
from tokenserver.errors import NotFound
from tokenserver.oauth import scope as scopes
from tokenserver.oauth.errors import UnauthorizedClient
from tokenserver.oauth.models import Consent
from tokenserver.storage.feed import Change, Feed, Kind
from tokenserver.storage.sql import Transaction, utc_now
from tokenserver.tokens.models import AuthorizationCode
from tokenserver.tokens.sessions import EndReason, Sessions


class Wanted(NamedTuple):
    """What a request asks a user for: scopes, and claims by name that these scopes don't hold."""

    scope: frozenset[str]
    claims: frozenset[str]


class Consents:
    def __init__(self, feed: Feed, sessions: Sessions) -> None:
        self._feed = feed
        self._sessions = sessions

    def cover(self, user_id: UUID, client_id: str, wanted: Wanted) -> bool:
        """Whether the user was asked for all of this before, and let the client have it."""
        row = self._feed.database.read(lambda tx: tx.get(Consent, (user_id, client_id)))
        return row is not None and wanted.scope <= set(row.scope.split()) and wanted.claims <= set(row.claims)

    def remember(self, user_id: UUID, client_id: str, wanted: Wanted) -> None:
        """Beside what was let before. Recorded when it is more than that."""

        def add(tx: Transaction) -> None:
            row = tx.get(Consent, (user_id, client_id), with_for_update=True)
            now = utc_now()
            if row is None:
                row = Consent(user_id=user_id, client_id=client_id, scope="", claims=[], created_at=now)
                tx.add(row)
            had = Wanted(frozenset(row.scope.split()), frozenset(row.claims))
            row.scope = scopes.to_text(had.scope | wanted.scope)
            row.claims = sorted(had.claims | wanted.claims)
            row.updated_at = now
            if not (wanted.scope <= had.scope and wanted.claims <= had.claims):
                scope, claims = scopes.to_text(wanted.scope), sorted(wanted.claims)
                record(tx, Event.CONSENT_GRANTED, target=user_id, client=client_id, scope=scope, claims=claims)

        try:
            self._feed.database.write(add)
        except IntegrityError:
            try:
                self._feed.database.write(add)  # another tab was faster; now there is a row
            except IntegrityError:
                raise UnauthorizedClient(reason="client_deleted") from None

    def of_user(
        self, user_id: UUID, *, limit: int, before: tuple[datetime, str] | None = None
    ) -> Sequence[Consent]:
        """The newest first."""
        query = select(Consent).where(Consent.user_id == user_id)
        if before is not None:
            at, client_id = before
            later = (Consent.created_at == at) & (Consent.client_id < client_id)
            query = query.where((Consent.created_at < at) | later)
        query = query.order_by(Consent.created_at.desc(), Consent.client_id.desc()).limit(limit)
        return self._feed.database.read(lambda tx: tx.scalars(query).all())

    def withdraw(self, tx: Transaction, change: Change, user_id: UUID, client_id: str) -> None:
        """The client's tokens of this user end with it. Raises NotFound `consent_not_found`."""
        # What can't be an id is not asked of the database, which may refuse its characters.
        is_id = CLIENT_ID.fullmatch(client_id) is not None
        row = tx.get(Consent, (user_id, client_id), with_for_update=True) if is_id else None
        if row is None:
            raise NotFound("There is no such consent.", code="consent_not_found")
        tx.delete(row)
        self._sessions.end(tx, change, user_id=user_id, client_id=client_id, reason=EndReason.CONSENT_WITHDRAWN)
        # Access tokens that no refresh token went with: by the codes that they came of.
        recent = utc_now() - timedelta(milliseconds=self._feed.retention_ms)
        query = select(AuthorizationCode.family_id).where(
            AuthorizationCode.client_id == client_id,
            AuthorizationCode.user_id == user_id,
            AuthorizationCode.created_at > recent,
        )
        for family_id in tx.scalars(query):
            change.note(Kind.FAMILY, family_id)
        record(tx, Event.CONSENT_WITHDRAWN, target=user_id, client=client_id)
