"""Initial access tokens: an operator's invitation to register clients (RFC 7591 section 3)."""

import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import CursorResult, delete, select, update

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.clients.client_secret import digest
from tokenserver.clients.models import InitialAccessToken
from tokenserver.errors import NotFound
from tokenserver.storage.sql import Database, Transaction, new_id, utc_now

PREFIX: Final = "iat_"
LIFETIME_SECONDS: Final = 7 * 86400


class InitialAccessTokens:
    def __init__(self, database: Database) -> None:
        self._database = database

    def invite(
        self, *, note: str, uses: int | None, lifetime: int, created_by: str
    ) -> tuple[InitialAccessToken, str]:
        """The row and the token, which is seen this once. `lifetime` in s; `uses` None: any number."""
        token = PREFIX + secrets.token_urlsafe(32)
        now = utc_now()
        row = InitialAccessToken(
            id=new_id(),
            digest=digest(token),
            note=note,
            created_by=created_by,
            uses_left=uses,
            created_at=now,
            expires_at=now + timedelta(seconds=lifetime),
        )

        def add(tx: Transaction) -> None:
            tx.add(row)
            record(tx, Event.INITIAL_ACCESS_TOKEN_CREATED, target=row.id, note=note, uses=uses)

        self._database.write(add)
        return row, token

    def find(self, token: str) -> InitialAccessToken | None:
        """One that may be used now."""
        query = select(InitialAccessToken).where(
            InitialAccessToken.digest == digest(token), InitialAccessToken.expires_at > utc_now(), USABLE
        )
        return self._database.read(lambda tx: tx.scalar(query))

    @staticmethod
    def spend(tx: Transaction, token: str) -> bool:
        """One use of it; of all who try for the last one at once, one gets True."""
        usable = (InitialAccessToken.digest == digest(token), InitialAccessToken.expires_at > utc_now(), USABLE)
        spent = update(InitialAccessToken).where(*usable).values(uses_left=InitialAccessToken.uses_left - 1)
        return cast("CursorResult[Any]", tx.execute(spent)).rowcount == 1

    def list(self) -> Sequence[InitialAccessToken]:
        query = select(InitialAccessToken).order_by(InitialAccessToken.created_at, InitialAccessToken.id)
        return self._database.read(lambda tx: tx.scalars(query).all())

    def revoke(self, token_id: UUID) -> None:
        """Raises NotFound `invitation_not_found`."""

        def remove(tx: Transaction) -> None:
            row = tx.get(InitialAccessToken, token_id)
            if row is None:
                raise NotFound("There is no such invitation.", code="invitation_not_found")
            tx.delete(row)
            record(tx, Event.INITIAL_ACCESS_TOKEN_REVOKED, target=token_id)

        self._database.write(remove)

    def purge(self, limit: int = 1000) -> int:
        """Delete expired ones, at most `limit`; how many."""

        def expired(tx: Transaction) -> int:
            old = select(InitialAccessToken.id).where(InitialAccessToken.expires_at < utc_now()).limit(limit)
            ids = tx.scalars(old).all()
            tx.execute(delete(InitialAccessToken).where(InitialAccessToken.id.in_(ids)))
            return len(ids)

        return self._database.write(expired)


USABLE: Final = InitialAccessToken.uses_left.is_(None) | (InitialAccessToken.uses_left > 0)
