"""Signing in with a password: the same work and the same answer whether the user exists or not."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tokenserver.audit.events import Event
from tokenserver.audit.trail import Trail
from tokenserver.errors import Overloaded
from tokenserver.identity.models import User
from tokenserver.identity.names import folded
from tokenserver.identity.passwords import Passwords
from tokenserver.identity.people import ACTIVE, People
from tokenserver.storage.feed import Feed
from tokenserver.storage.sql import Transaction
from tokenserver.web.rate_limit import Limit, RateLimits, network_of
from tokenserver.web.request_context import current

# Failed sign-ins: of one account from one network, and of one network over all accounts. Never of an account from
# everywhere: that would let anybody lock anybody out.
ACCOUNT_FAILURES: Final = Limit("login_account", burst=20, interval_ms=3000)
NETWORK_FAILURES: Final = Limit("login_network", burst=100, interval_ms=1000)


class Refusal(StrEnum):
    INVALID_CREDENTIALS = "invalid_credentials"
    ACCOUNT_DISABLED = "account_disabled"
    SECOND_FACTOR_REQUIRED = "second_factor_required"
    INVALID_OTP = "invalid_otp"


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
    def __init__(self, feed: Feed, people: People, passwords: Passwords, limits: RateLimits, trail: Trail) -> None:
        self._feed = feed
        self._people = people
        self._passwords = passwords
        self._limits = limits
        self._trail = trail

    def authenticate(self, login: str, password: str) -> Proof | Refusal:
        """`login`: user name or e-mail address. A disabled account is only told to who knows its password.
        Whether that is enough to sign in, `SecondFactors.complete` tells.

        Raises TooManyRequests, Overloaded.
        """
        network = network_of(current().address)
        user = self._people.find_by_login(login)
        # One count for an account, whether it is called by its user name or by its e-mail address.
        account = str(user.id) if user else folded(login)
        counted = ((ACCOUNT_FAILURES, f"{network} {account}"), (NETWORK_FAILURES, network))
        self._limits.take(*counted)
        try:
            right = self._passwords.verify(user.password_hash if user else None, password)
        except Overloaded:
            self._limits.give_back(*counted)  # nothing was tried
            raise
        if not right or user is None:
            self._record_failure(user, Refusal.INVALID_CREDENTIALS)
            return Refusal.INVALID_CREDENTIALS
        self._limits.give_back(*counted)
        if user.status != ACTIVE:
            self._record_failure(user, Refusal.ACCOUNT_DISABLED)
            return Refusal.ACCOUNT_DISABLED
        if self._passwords.needs_rehash(user.password_hash):
            user = self._rehash(user, password)
        return Proof(user)

    def _record_failure(self, user: User | None, refusal: Refusal) -> None:
        # What was typed is not recorded: people type passwords into the wrong field.
        target = user.id if user else None
        event = self._trail.describe(Event.LOGIN_FAILED, outcome="denied", reason=refusal.value, target=target)
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
