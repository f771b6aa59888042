"""Browsers, by a cookie, and networks that an account's owner has signed in from."""

import hashlib
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import and_, delete, or_, select

from tokenserver.identity.models import KnownDevice, User
from tokenserver.identity.notices import Notices
from tokenserver.storage.sql import Database, Transaction, utc_now
from tokenserver.tokens.models import Session
from tokenserver.tokens.sessions import EndReason
from tokenserver.web.cookies import DEVICE_LIFETIME, new_cookie
from tokenserver.web.rate_limit import network_of
from tokenserver.web.request_context import current

LIFETIME: Final = timedelta(seconds=DEVICE_LIFETIME)
# So often it is written down that a device is used.
USE_WRITTEN: Final = timedelta(days=1)
MAX_DEVICES: Final = 20
LATELY: Final = timedelta(days=30)
MAX_ADDRESSES: Final = 200
NOBODY: Final = UUID(int=0)


class KnownDevices:
    """A device is known by a secret of its own, which lies in its cookie alone. What is stored is a digest of it
    with the account and its password hash: a device is known for one account, and none is after a new password.
    """

    def __init__(self, database: Database, notices: Notices) -> None:
        self._database = database
        self._notices = notices

    def subject(self, user: User | None, device: str | None) -> str | None:
        """What its failures are counted by, if this is a device of this user. The same work for nobody's."""
        if device is None:
            return None
        digest = _digest(user, device)
        row = self._database.read(lambda tx: tx.get(KnownDevice, digest))
        return f"device {digest.hex()}" if row is not None and row.used_at > utc_now() - LIFETIME else None

    def remember(self, user: User, device: str | None) -> str:
        """After a sign-in: the value of the cookie. A new device gets a new secret, whatever it came with, which
        somebody else might know; the user is told, unless it is the first sign-in of all."""

        def remember(tx: Transaction) -> str:
            now = utc_now()
            row = tx.get(KnownDevice, _digest(user, device)) if device is not None else None
            if device is not None and row is not None and row.used_at > now - LIFETIME:
                if row.used_at < now - USE_WRITTEN:
                    row.used_at = now
                return device
            fresh = new_cookie()
            newest = select(KnownDevice.digest).where(KnownDevice.user_id == user.id)
            old = tx.scalars(newest.order_by(KnownDevice.used_at.desc()).offset(MAX_DEVICES - 1)).all()
            tx.execute(delete(KnownDevice).where(KnownDevice.digest.in_(old)))
            tx.add(KnownDevice(digest=_digest(user, fresh), user_id=user.id, created_at=now, used_at=now))
            if _has_sessions(tx, user, more_than=1):  # one began just now
                self._tell(tx, user)
            return fresh

        return self._database.write(remember)

    def meet_network(self, tx: Transaction, user: User) -> None:
        """Before a session without a browser begins: the user is told if its network is new, unless it
        is the first sign-in of all."""
        is_known = network_of(current().address) in _networks(tx, user)
        if not is_known and _has_sessions(tx, user, more_than=0):
            self._tell(tx, user)

    def _tell(self, tx: Transaction, user: User) -> None:
        context = current()
        self._notices.new_device(tx, user, context.address, context.user_agent)

    def has_signed_in_from(self, user: User | None, network: str) -> bool:
        """Within the last 30 days, in a session that lasts or that the user ended. The same work for nobody."""
        return network in self._database.read(lambda tx: _networks(tx, user))

    def purge(self, limit: int = 500) -> int:
        """Forget devices that nobody came back with, at most `limit`; how many."""

        def old(tx: Transaction) -> int:
            query = select(KnownDevice.digest).where(KnownDevice.used_at < utc_now() - LIFETIME).limit(limit)
            digests = tx.scalars(query).all()
            tx.execute(delete(KnownDevice).where(KnownDevice.digest.in_(digests)))
            return len(digests)

        return self._database.write(old)


def _networks(tx: Transaction, user: User | None) -> set[str]:
    """That the user signed in from within the last 30 days, in a session that lasts or that they ended."""
    now = utc_now()
    good = or_(
        and_(Session.ended_at.is_(None), Session.expires_at > now), Session.end_reason == EndReason.LOGOUT.value
    )
    query = select(Session.address).where(
        Session.user_id == (user.id if user else NOBODY), Session.created_at > now - LATELY, good
    )
    newest = query.order_by(Session.created_at.desc()).limit(MAX_ADDRESSES)
    return {network_of(address) for address in tx.scalars(newest)}


def _has_sessions(tx: Transaction, user: User, *, more_than: int) -> bool:
    found = select(Session.id).where(Session.user_id == user.id).limit(more_than + 1)
    return len(tx.scalars(found).all()) > more_than


def _digest(user: User | None, device: str) -> bytes:
    text = f"{user.id if user else NOBODY} {device} {user.password_hash if user else ''}"
    return hashlib.sha256(text.encode()).digest()
