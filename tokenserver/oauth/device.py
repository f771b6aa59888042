"""Devices that wait for a user (RFC 8628): their codes, the user's answer, and the one redemption."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import Select, delete, select, update
from sqlalchemy.exc import IntegrityError

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.clients.registry import Client
from tokenserver.config import Settings
from tokenserver.errors import NotFound
from tokenserver.identity.models import User
from tokenserver.identity.people import ACTIVE
from tokenserver.oauth.errors import (
    AccessDenied,
    AuthorizationPending,
    ExpiredToken,
    InvalidClient,
    InvalidGrant,
    OAuthError,
    SlowDown,
)
from tokenserver.oauth.models import DeviceCode
from tokenserver.storage.feed import Feed
from tokenserver.storage.sql import Transaction, new_id, utc_now
from tokenserver.tokens.models import Session
from tokenserver.web.rate_limit import Limit, RateLimits, network_of
from tokenserver.web.request_context import current

PREFIX: Final = "dc_"
# RFC 8628 section 6.1: no vowels, so no words, and nothing that looks like a digit; 20^8 of them.
ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"
LENGTH: Final = 8
LIFETIME: Final = 600  # s
INTERVAL: Final = 5  # s, between polls
SLOWER: Final = 5  # s, added for one that comes too early (section 3.5)
# So long the device is told what became of its code.
KEPT: Final = timedelta(hours=1)
MAX_TRIES: Final = 5

# Of one device code, in a process: who polls faster than its interval allows for long is not looked at any more.
POLLS: Final = Limit("device-poll", burst=30, interval_ms=2000)


class Status(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    USED = "used"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a user is asked about. `user_code` as it is shown. `scope` None: all that the user holds."""

    user_code: str
    client_id: str
    scope: frozenset[str] | None


class Devices:
    def __init__(self, feed: Feed, limits: RateLimits, settings: Settings) -> None:
        self._database = feed.database
        self._limits = limits
        self._begun = Limit.of("device-authorization", settings.limit_device)
        # Section 5.1: wrong guesses, from one network and of one user.
        self._network_guesses = Limit.of("user-code-network", settings.limit_user_code)
        self._user_guesses = Limit.of("user-code", settings.limit_user_code)

    # The device

    def start(self, client: Client, scope: str, audience: tuple[str, ...]) -> tuple[str, str]:
        """A device code, and a user code as it is shown. `scope`: "" for whatever the user holds.

        Raises TooManyRequests.
        """
        self._limits.take((self._begun, f"{network_of(current().address)} {client.client_id}"))
        for _ in range(MAX_TRIES):
            device_code = PREFIX + secrets.token_urlsafe(32)
            user_code = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
            now = utc_now()
            values = {
                "digest": _digest(device_code),
                "user_code": user_code,
                "client_id": client.client_id,
                "scope": scope,
                "audience": list(audience),
                "status": Status.PENDING.value,
                "interval": INTERVAL,
                "family_id": new_id(),
                "created_at": now,
                "expires_at": now + timedelta(seconds=LIFETIME),
            }

            def add(tx: Transaction, values: dict[str, object] = values) -> None:
                tx.add(DeviceCode(**values))
                tx.flush()
                record(tx, Event.DEVICE_CODE_ISSUED, target=str(values["family_id"]))

            try:
                self._database.write(add)
            except IntegrityError:
                continue  # another device waits with this user code
            return device_code, shown(user_code)
        raise InvalidClient(reason="deleted_meanwhile")

    def poll(self, device_code: str, client: Client) -> DeviceCode:
        """What the user approved. Raises the OAuthErrors of RFC 8628 section 3.5, InvalidGrant, TooManyRequests."""
        self._limits.take_here(POLLS, _digest(device_code).hex())

        def look(tx: Transaction) -> DeviceCode | OAuthError:
            # Behind a lock: polls at the same moment count one after the other.
            row = tx.get(DeviceCode, _digest(device_code), with_for_update=True)
            if row is None or row.client_id != client.client_id:
                return InvalidGrant(reason="unknown_device_code" if row is None else "wrong_client")
            return _judged(row)

        found = self._database.write(look)  # returned, not raised: no rollback can undo the longer interval
        if isinstance(found, OAuthError):
            raise found
        return found

    @staticmethod
    def spend(tx: Transaction, approved: DeviceCode) -> Session:
        """Redeem it, once; the session in which it was approved. Raises InvalidGrant, also when that session or
        that user was ended meanwhile."""
        # Whoever disables a user or ends their sessions locks the user first, and then sees what starts here.
        user = tx.get(User, approved.user_id, with_for_update={"read": True}, populate_existing=True)
        session = tx.get(Session, approved.session_id, with_for_update={"read": True}, populate_existing=True)
        if user is None or user.status != ACTIVE or session is None or not _is_live(session):
            raise InvalidGrant(reason="ended")
        unused = update(DeviceCode).where(
            DeviceCode.digest == approved.digest, DeviceCode.status == Status.APPROVED.value
        )
        if not tx.connection().execute(unused.values(status=Status.USED.value)).rowcount:
            raise InvalidGrant(reason="used")
        return session

    # The user

    def enter(self, user_code: str, *, session_id: UUID, user_id: UUID) -> Waiting | None:
        """The code step: the device that waits with this code, which this user in this session may answer from now
        on. None for an unknown one, and one that waits no more. Raises TooManyRequests after ten wrong ones."""
        guessed = ((self._network_guesses, network_of(current().address)), (self._user_guesses, str(user_id)))
        self._limits.take(*guessed)

        def claim(tx: Transaction) -> Waiting | None:
            row = tx.scalar(_pending(user_code))
            if row is None:
                return None
            row.session_id, row.user_id = session_id, user_id
            client_id, scope = row.client_id, frozenset(row.scope.split()) if row.scope else None
            return Waiting(shown(row.user_code), client_id, scope)

        found = self._database.write(claim)
        if found is not None:
            self._limits.give_back(*guessed)
        return found

    def approve(self, user_code: str, *, session_id: UUID, user_id: UUID) -> None:
        """Raises NotFound `device_not_found` unless this user, in this session, has just entered the code."""

        def approve(tx: Transaction) -> None:
            row = _entered(tx, user_code, session_id, user_id)
            session = tx.get(Session, session_id, with_for_update={"read": True})
            if session is None or session.user_id != user_id or not _is_live(session):
                raise _not_found()
            row.status = Status.APPROVED.value
            row.authenticated_at, row.amr = session.authenticated_at, list(session.amr)
            record(tx, Event.DEVICE_CODE_APPROVED, target=row.family_id, client=row.client_id)

        self._database.write(approve)

    def deny(self, user_code: str, *, session_id: UUID, user_id: UUID) -> None:
        """For good. Raises like `approve`."""

        def deny(tx: Transaction) -> None:
            row = _entered(tx, user_code, session_id, user_id)
            row.status = Status.DENIED.value
            record(tx, Event.DEVICE_CODE_DENIED, target=row.family_id, client=row.client_id)

        self._database.write(deny)

    # Chores

    def purge(self, limit: int = 500) -> int:
        """Delete codes that expired an hour ago; at most `limit`; how many."""

        def old(tx: Transaction) -> int:
            query = select(DeviceCode.digest).where(DeviceCode.expires_at < utc_now() - KEPT).limit(limit)
            digests = tx.scalars(query).all()
            tx.execute(delete(DeviceCode).where(DeviceCode.digest.in_(digests)))
            return len(digests)

        return self._database.write(old)


def shown(user_code: str) -> str:
    return f"{user_code[:4]}-{user_code[4:]}"


def _judged(row: DeviceCode) -> DeviceCode | OAuthError:
    now = utc_now()
    if row.status == Status.USED:
        return InvalidGrant(reason="used")
    if row.status == Status.DENIED:
        return AccessDenied(reason="by_the_user")
    if row.expires_at <= now:
        return ExpiredToken()
    if row.status == Status.APPROVED:
        return row
    is_early = row.polled_at is not None and now < row.polled_at + timedelta(seconds=row.interval)
    row.polled_at = now
    if is_early:
        # RFC 8628 section 3.5: for this and all subsequent requests
        row.interval += SLOWER
        return SlowDown()
    return AuthorizationPending()


def _entered(tx: Transaction, user_code: str, session_id: UUID, user_id: UUID) -> DeviceCode:
    row = tx.scalar(_pending(user_code))
    # RFC 8628 section 5.4: a page with somebody else's code in it must not be enough.
    if row is None or (row.session_id, row.user_id) != (session_id, user_id):
        raise _not_found()
    return row


def _not_found() -> NotFound:
    return NotFound("No device waits with this code.", code="device_not_found")


def _pending(user_code: str) -> Select[tuple[DeviceCode]]:
    # Section 6.1: whatever its case, and whatever a user puts between the letters.
    typed = "".join(c for c in user_code.upper() if c in ALPHABET)[: LENGTH + 1]
    return (
        select(DeviceCode)
        .where(
            DeviceCode.user_code == typed,
            DeviceCode.status == Status.PENDING.value,
            DeviceCode.expires_at > utc_now(),
        )
        .with_for_update()
    )


def _is_live(session: Session) -> bool:
    return session.ended_at is None and session.expires_at > utc_now()


def _digest(device_code: str) -> bytes:
    return hashlib.sha256(device_code.encode()).digest()
