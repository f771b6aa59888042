"""A user's authenticator app: enrolled, confirmed by a first code, and asked for codes that are good once (RFC 6238
section 5.2)."""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import CursorResult, select, update

from tokenserver.errors import Conflict, NotFound
from tokenserver.identity.second_factors import totp
from tokenserver.identity.second_factors.models import AuthenticatorApp
from tokenserver.storage import sealing
from tokenserver.storage.sql import Database, Transaction, utc_now

logger = logging.getLogger("tokenserver")
# So long a secret that was shown waits for its first code.
PENDING_MINUTES: Final = 15
SEALING: Final = "second_factor"  # purpose of the ring's secrets
BATCH: Final = 500


class AuthenticatorApps:
    """`keys`: secrets of the ring, under the first of which TOTP secrets are sealed."""

    def __init__(self, database: Database, keys: Callable[[], Sequence[bytes]]) -> None:
        self._database = database
        self._keys = keys
        self._sealed_under: bytes | None = None  # everything, as of the last look

    def enrol(self, tx: Transaction, user_id: UUID) -> bytes:
        """A secret to be shown this once; it counts when it is confirmed. Raises Conflict `totp_enrolled`."""
        row = tx.get(AuthenticatorApp, user_id, with_for_update=True)
        if row is not None and row.confirmed_at is not None:
            raise Conflict("There is an authenticator app already. Remove it first.", code="totp_enrolled")
        secret = totp.generate()
        sealed = sealing.seal(secret, self._keys(), str(user_id))
        if row is None:
            row = AuthenticatorApp(user_id=user_id)
            tx.add(row)
        row.sealed, row.last_step, row.created_at = sealed, 0, utc_now()
        return secret

    def pending(self, user_id: UUID) -> bytes | None:
        """The secret that waits for its first code."""
        row = self._database.read(lambda tx: tx.get(AuthenticatorApp, user_id))
        return self._open(row) if row is not None and _is_pending(row) else None

    def confirm(self, tx: Transaction, user_id: UUID, code: str) -> bool:
        """False for a wrong code. Raises NotFound `totp_not_enrolled`: nothing waits for one any more."""
        row = tx.get(AuthenticatorApp, user_id, with_for_update=True)
        if row is None or not _is_pending(row):
            raise NotFound("No authenticator app waits for its first code. Begin again.", code="totp_not_enrolled")
        secret = self._open(row)
        step = None if secret is None else totp.matching_step(secret, code, time.time())
        if step is None:
            return False
        row.confirmed_at, row.last_step = utc_now(), step
        return True

    def spend(self, user_id: UUID, code: str) -> bool:
        """Whether it is the user's code of this moment; of all who send it at once, to whichever node, one gets
        True."""
        row = self._database.read(lambda tx: tx.get(AuthenticatorApp, user_id))
        if row is None or row.confirmed_at is None:
            return False
        secret = self._open(row)
        step = None if secret is None else totp.matching_step(secret, code, time.time())
        if step is None:
            return False
        # RFC 6238 section 5.2: the second attempt with a code MUST NOT be accepted.
        unspent = (AuthenticatorApp.user_id == user_id, AuthenticatorApp.last_step < step)
        spent = update(AuthenticatorApp).where(*unspent, AuthenticatorApp.confirmed_at.is_not(None))
        result = self._database.write(lambda tx: tx.execute(spent.values(last_step=step)))
        return cast("CursorResult[Any]", result).rowcount == 1

    def reseal(self, keys: Sequence[bytes] = ()) -> int:
        """What was sealed under an older key is under the newest from now on; how many. To be called before an
        older key is thrown away, or after it with the `keys` of before."""
        newest, *older = self._keys()
        if newest == self._sealed_under and not keys:
            return 0
        count, last = 0, None
        while found := self._database.read(partial(_some, after=last)):
            count += sum(self._reseal(*row, newest=newest, older=[*older, *keys]) for row in found)
            last = found[-1][0]
        if not count:
            self._sealed_under = newest
        return count

    def _reseal(self, user_id: UUID, sealed: bytes, *, newest: bytes, older: Sequence[bytes]) -> bool:
        owner = str(user_id)
        if sealing.unseal(sealed, [newest], owner) is not None:
            return False
        secret = sealing.unseal(sealed, older, owner)
        if secret is None:
            return False
        fresh = sealing.seal(secret, [newest], owner)
        unchanged = (AuthenticatorApp.user_id == user_id, AuthenticatorApp.sealed == sealed)
        self._database.write(lambda tx: tx.execute(update(AuthenticatorApp).where(*unchanged).values(sealed=fresh)))
        return True

    def _open(self, row: AuthenticatorApp) -> bytes | None:
        secret = sealing.unseal(row.sealed, self._keys(), str(row.user_id))
        if secret is None:
            logger.error("a TOTP secret was sealed under a key that the ring has no more: user %s", row.user_id)
        return secret


def _is_pending(row: AuthenticatorApp) -> bool:
    return row.confirmed_at is None and utc_now() - row.created_at < timedelta(minutes=PENDING_MINUTES)


def _some(tx: Transaction, *, after: UUID | None) -> Sequence[tuple[UUID, bytes]]:
    query = select(AuthenticatorApp.user_id, AuthenticatorApp.sealed).order_by(AuthenticatorApp.user_id)
    if after is not None:
        query = query.where(AuthenticatorApp.user_id > after)
    return [(user_id, sealed) for user_id, sealed in tx.execute(query.limit(BATCH))]
