"""Signing in with a password: the same work and the same answer whether the user exists or not."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID

from tokenserver.audit.events import Event
from tokenserver.audit.trail import Trail
from tokenserver.errors import Overloaded, TooManyRequests
from tokenserver.identity.known_devices import KnownDevices
from tokenserver.identity.models import User
from tokenserver.identity.names import folded
from tokenserver.identity.passwords import Passwords
from tokenserver.identity.people import ACTIVE, People
from tokenserver.identity.throttle import Attempt, Throttle
from tokenserver.signals import metrics
from tokenserver.storage.feed import Feed
from tokenserver.storage.sql import Transaction
from tokenserver.web.rate_limit import network_of
from tokenserver.web.request_context import current

# `SecondFactors.complete`, with what came beside the password.
Complete = Callable[["Proof"], "Proof | Refusal"]


class Throttled(TooManyRequests):
    """Too many failures of this account from everywhere. A second factor beside the password passes that."""

    public = "Too many sign-ins of this account failed. Wait, or send the code of your second factor too."


class Refusal(StrEnum):
    INVALID_CREDENTIALS = "invalid_credentials"
    ACCOUNT_DISABLED = "account_disabled"
    SECOND_FACTOR_REQUIRED = "second_factor_required"
    INVALID_OTP = "invalid_otp"
    INVALID_PASSKEY = "invalid_passkey"


@dataclass(frozen=True, slots=True)
class Proof:
    """A user who knew the password just now; and by what else they proved who they are (`amr`, RFC 8176). `holds`,
    asked in the transaction that uses it, tells whether the password was changed or the account disabled meanwhile.
    """

    user: User
    amr: tuple[str, ...] = ("pwd",)

    def holds(self, tx: Transaction) -> bool:
        row = tx.get(User, self.user.id, with_for_update={"read": True}, populate_existing=True)
        return row is not None and row.status == ACTIVE and row.password_hash == self.user.password_hash


class Login:
    def __init__(
        self,
        feed: Feed,
        people: People,
        passwords: Passwords,
        throttle: Throttle,
        known_devices: KnownDevices,
        trail: Trail,
    ) -> None:
        self._feed = feed
        self._people = people
        self._passwords = passwords
        self._throttle = throttle
        self._known_devices = known_devices
        self._trail = trail

    def authenticate(
        self,
        login: str,
        password: str,
        *,
        device: str | None = None,
        session_id: UUID | None = None,
        complete: Complete | None = None,
    ) -> Proof | Refusal:
        """`login`: user name or e-mail address. A disabled account is only told to who knows its password.
        Whether that is enough to sign in, `SecondFactors.complete` tells.

        `device`: the cookie of a browser. `session_id`: of this very user, who proves the password once more.
        `complete`: asked after the right password; a second factor that it finds right passes what strangers do to
        an account, a wrong one counts like a wrong password. Raises TooManyRequests, Overloaded.
        """
        self._passwords.require_room()
        user = self._people.find_by_login(login)
        known = f"session {session_id}" if session_id else self._known_devices.subject(user, device)
        attempt = self._throttle.begin(folded(login), known)
        try:
            right = self._passwords.verify(user.password_hash if user else None, password)
        except Overloaded:
            self._throttle.give_back(attempt)  # nothing was tried
            raise
        outcome = self._judged(user, attempt, complete, right=right)
        if attempt.wait and not self._passes(user, outcome):
            self._throttle.refused(attempt)
            self._record_failure(user, "too_many_failures")
            metrics.sign_ins.count("too_many_failures")
            raise Throttled(attempt.wait)
        self._settle(attempt, outcome)
        metrics.sign_ins.count(outcome.value if isinstance(outcome, Refusal) else "success")
        if isinstance(outcome, Refusal):
            if outcome in {Refusal.INVALID_CREDENTIALS, Refusal.ACCOUNT_DISABLED}:
                self._record_failure(user, outcome.value)
            return outcome
        if self._passwords.needs_rehash(outcome.user.password_hash):
            return replace(outcome, user=self._rehash(outcome.user, password))
        return outcome

    def meet(self, tx: Transaction, user: User) -> None:
        """In the transaction that begins a session without a browser, before it does: see `KnownDevices`."""
        self._known_devices.meet_network(tx, user)

    def forgive(self, user: User) -> None:
        """Failures of this account don't count any more: its owner proved in another way who they are."""
        self._throttle.forgive(user.username_key, user.email_key)

    @staticmethod
    def _judged(user: User | None, attempt: Attempt, complete: Complete | None, *, right: bool) -> Proof | Refusal:
        if not right or user is None:
            return Refusal.INVALID_CREDENTIALS
        if user.status != ACTIVE:
            return Refusal.ACCOUNT_DISABLED
        if complete is None:
            return Proof(user)
        try:
            return complete(Proof(user))
        except TooManyRequests:
            if attempt.wait:
                return Refusal.INVALID_OTP  # in other words than for a wrong password, it would tell a right one
            raise

    def _passes(self, user: User | None, outcome: Proof | Refusal) -> bool:
        """Too many failures from everywhere: with the right password alone only from a network that the user comes
        from. To everybody else right and wrong ones look the same, and take the same work."""
        from_known = self._known_devices.has_signed_in_from(user, network_of(current().address))
        if outcome is Refusal.INVALID_CREDENTIALS:
            return False
        return from_known or (isinstance(outcome, Proof) and "mfa" in outcome.amr)

    def _settle(self, attempt: Attempt, outcome: Proof | Refusal) -> None:
        if isinstance(outcome, Proof):
            self._throttle.succeeded(attempt)
        elif outcome in {Refusal.ACCOUNT_DISABLED, Refusal.SECOND_FACTOR_REQUIRED}:
            self._throttle.give_back(attempt)

    def _record_failure(self, user: User | None, reason: str) -> None:
        # What was typed is not recorded: people type passwords into the wrong field.
        target = user.id if user else None
        event = self._trail.describe(Event.LOGIN_FAILED, outcome="denied", reason=reason, target=target)
        current().events.append(event)

    def _rehash(self, user: User, password: str) -> User:
        """Stronger parameters take hold at the next sign-in, which has the password."""
        fresh = self._passwords.hash(password)

        def store(tx: Transaction) -> User:
            row = tx.get(User, user.id, with_for_update=True)
            if row is None or row.password_hash != user.password_hash:
                return user  # changed meanwhile: `Proof.holds` will say so
            row.password_hash = fresh
            return row

        return self._feed.database.write(store)
