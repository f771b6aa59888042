"""A user's second factors as one: whether there are any, what they are, and a sign-in that needs one of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import delete, select

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.audit.trail import Trail
from tokenserver.errors import Conflict, Forbidden, NotFound
from tokenserver.identity.login import Proof, Refusal
from tokenserver.identity.notices import Notices
from tokenserver.identity.people import People
from tokenserver.identity.second_factors import recovery_codes
from tokenserver.identity.second_factors.authenticator_app import AuthenticatorApps
from tokenserver.identity.second_factors.models import AuthenticatorApp, Passkey
from tokenserver.storage.sql import Database, Transaction
from tokenserver.web.language import marked
from tokenserver.web.rate_limit import Limit, RateLimits
from tokenserver.web.request_context import current

# RFC 4226 section 7.3. Of one account, and only who knows its password gets this far: a guess every five minutes is
# right once in three years. Nobody is locked out for good by it: passkeys and recovery codes are not counted.
# Not told: only after a right password there is something to tell.
GUESSES: Final = Limit("second-factor", burst=10, interval_ms=300_000, is_shown=False)
# In the words of a mail.
APP: Final = marked("an authenticator app")
CODE: Final = re.compile(r"[0-9]{6}")
# RFC 8176 section 2. A recovery code is a one-time password too.
WITH_OTP: Final = ("pwd", "otp", "mfa")


@dataclass(frozen=True, slots=True)
class Held:
    """`app_since`: when the authenticator app was confirmed."""

    app_since: datetime | None
    passkeys: Sequence[Passkey]
    recovery_codes_left: int

    def __bool__(self) -> bool:
        return self.app_since is not None or bool(self.passkeys)


class SecondFactors:
    def __init__(
        self, database: Database, apps: AuthenticatorApps, limits: RateLimits, trail: Trail, notices: Notices
    ) -> None:
        self._database = database
        self._limits = limits
        self._trail = trail
        self._notices = notices
        self.apps = apps

    # Reading

    def held(self, user_id: UUID) -> Held:
        return self._database.read(lambda tx: read(tx, user_id))

    def has_any(self, user_id: UUID) -> bool:
        return self._database.read(lambda tx: has_any(tx, user_id))

    # Signing in

    def complete(self, proof: Proof, otp: str | None) -> Proof | Refusal:
        """After the right password. `otp`: what the user sent beside it: a code of the app, or a recovery code.

        Raises TooManyRequests.
        """
        user_id = proof.user.id
        if not self.has_any(user_id):
            return proof
        refusal = Refusal.SECOND_FACTOR_REQUIRED if otp is None else Refusal.INVALID_OTP
        if otp is not None and self.spend(user_id, otp):
            return replace(proof, amr=WITH_OTP)
        details = self._trail.describe(Event.LOGIN_FAILED, outcome="denied", reason=refusal.value, target=user_id)
        current().events.append(details)
        return refusal

    def spend(self, user_id: UUID, otp: str) -> bool:
        """Whether it is right; it is worth nothing any more then. Raises TooManyRequests."""
        typed = otp.replace(" ", "")
        if not CODE.fullmatch(typed):
            return self._database.write(lambda tx: has_any(tx, user_id) and recovery_codes.spend(tx, user_id, otp))
        guess = (GUESSES, str(user_id))
        self._limits.take(guess)
        if not self.apps.spend(user_id, typed):
            return False
        self._limits.give_back(guess)
        return True

    # Changing

    def confirm_app(self, user_id: UUID, code: str) -> list[str]:
        """From now on it counts. Recovery codes, where it is the first factor; they are shown this once.

        Raises NotFound `totp_not_enrolled`, Forbidden `invalid_otp`, TooManyRequests.
        """
        guess = (GUESSES, str(user_id))
        self._limits.take(guess)

        def confirm(tx: Transaction) -> list[str]:
            user = People.get(tx, user_id, for_update=True)  # one after another: who is first?
            is_first = not has_any(tx, user_id)
            if not self.apps.confirm(tx, user_id, code.replace(" ", "")):
                raise Forbidden("The code is wrong.", code=Refusal.INVALID_OTP.value)
            record(tx, Event.SECOND_FACTOR_ADDED, target=user_id, kind="totp")
            self._notices.second_factor_added(tx, user, APP)
            return recovery_codes.issue(tx, user_id) if is_first else []

        codes = self._database.write(confirm)
        self._limits.give_back(guess)
        return codes

    def remove_app(self, user_id: UUID) -> None:
        """Raises NotFound `totp_not_enrolled`."""

        def remove(tx: Transaction) -> None:
            user = People.get(tx, user_id, for_update=True)
            row = tx.get(AuthenticatorApp, user_id)
            if row is None or row.confirmed_at is None:
                raise NotFound("There is no authenticator app.", code="totp_not_enrolled")
            tx.delete(row)
            tx.flush()
            removed(tx, user_id, "totp")
            self._notices.second_factor_removed(tx, user, APP)

        self._database.write(remove)

    def renew_recovery_codes(self, user_id: UUID) -> list[str]:
        """Raises Conflict `no_second_factor`: alone they are none."""

        def renew(tx: Transaction) -> list[str]:
            People.get(tx, user_id, for_update=True)
            if not has_any(tx, user_id):
                raise Conflict("Recovery codes go with a second factor. Add one first.", code="no_second_factor")
            return recovery_codes.issue(tx, user_id)

        return self._database.write(renew)

    def reset(self, tx: Transaction, user_id: UUID) -> Held:
        """Take away all of them: their user lost them. Those that there were."""
        held = read(tx, user_id)
        tx.execute(delete(AuthenticatorApp).where(AuthenticatorApp.user_id == user_id))
        tx.execute(delete(Passkey).where(Passkey.user_id == user_id))
        recovery_codes.forget(tx, user_id)
        if held:
            record(
                tx,
                Event.SECOND_FACTORS_RESET,
                target=user_id,
                totp=held.app_since is not None,
                passkeys=len(held.passkeys),
            )
            self._notices.second_factor_removed(tx, People.get(tx, user_id), marked("a second factor"))
        return held


def has_any(tx: Transaction, user_id: UUID) -> bool:
    """An app that was confirmed, or a passkey."""
    app = select(AuthenticatorApp.user_id).where(
        AuthenticatorApp.user_id == user_id, AuthenticatorApp.confirmed_at.is_not(None)
    )
    passkey = select(Passkey.user_id).where(Passkey.user_id == user_id)
    return tx.scalar(app.union_all(passkey).limit(1)) is not None


def read(tx: Transaction, user_id: UUID) -> Held:
    app = tx.get(AuthenticatorApp, user_id)
    passkeys = tx.scalars(select(Passkey).where(Passkey.user_id == user_id).order_by(Passkey.created_at)).all()
    return Held(app.confirmed_at if app else None, passkeys, recovery_codes.left(tx, user_id))


def removed(tx: Transaction, user_id: UUID, kind: str) -> None:
    """Record it; without any factor left recovery codes are worth nothing."""
    record(tx, Event.SECOND_FACTOR_REMOVED, target=user_id, kind=kind)
    if not has_any(tx, user_id):
        recovery_codes.forget(tx, user_id)
