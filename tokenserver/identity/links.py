"""Links that are mailed to a user: 256 bits, stored as a digest alone, good once and for a while.

Each depends on what the account was when it was made. Whatever that was, its change kills the link in the same
moment, without anybody having to think of it.
"""

import hashlib
import secrets
from datetime import timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import delete, select

from tokenserver.identity.models import AccountLink, User
from tokenserver.identity.people import ACTIVE
from tokenserver.storage.sql import Database, Transaction, utc_now


class Purpose(StrEnum):
    PASSWORD = "password"  # a new one may be set
    EMAIL = "email"  # the address is verified


LIFETIME: Final = {Purpose.PASSWORD: timedelta(minutes=30), Purpose.EMAIL: timedelta(days=1)}


def mint(tx: Transaction, user: User, purpose: Purpose) -> str:
    """The token of a link, in place of the one before."""
    token = secrets.token_urlsafe(32)
    now = utc_now()
    tx.execute(delete(AccountLink).where(AccountLink.user_id == user.id, AccountLink.purpose == purpose.value))
    tx.add(
        AccountLink(
            user_id=user.id,
            purpose=purpose.value,
            digest=_digest(token),
            state=_state(user, purpose),
            created_at=now,
            expires_at=now + LIFETIME[purpose],
        )
    )
    return token


def find(tx: Transaction, token: str, purpose: Purpose) -> User | None:
    """Whose link it is; None when it is unknown, used, replaced, expired or of an account that has changed."""
    live = (
        AccountLink.digest == _digest(token),
        AccountLink.purpose == purpose.value,
        AccountLink.expires_at > utc_now(),
    )
    found = tx.execute(
        select(AccountLink, User).join(User, User.id == AccountLink.user_id).where(*live)
    ).one_or_none()
    return _checked(found[1], found[0].state, purpose) if found else None


def consume(tx: Transaction, token: str, purpose: Purpose) -> User | None:
    """Like `find`; the user is locked, and of many who come with one link at once one finds it."""
    used = delete(AccountLink).where(
        AccountLink.digest == _digest(token),
        AccountLink.purpose == purpose.value,
        AccountLink.expires_at > utc_now(),
    )
    row = tx.execute(used.returning(AccountLink.user_id, AccountLink.state)).one_or_none()
    user = tx.get(User, row.user_id, with_for_update=True, populate_existing=True) if row else None
    return _checked(user, row.state, purpose) if row and user else None


def purge(database: Database, limit: int = 500) -> int:
    """Delete expired ones, at most `limit`; how many."""

    def old(tx: Transaction) -> int:
        digests = tx.scalars(
            select(AccountLink.digest).where(AccountLink.expires_at < utc_now()).limit(limit)
        ).all()
        tx.execute(delete(AccountLink).where(AccountLink.digest.in_(digests)))
        return len(digests)

    return database.write(old)


def _checked(user: User, state: bytes, purpose: Purpose) -> User | None:
    return user if user.status == ACTIVE and secrets.compare_digest(state, _state(user, purpose)) else None


def _state(user: User, purpose: Purpose) -> bytes:
    depends_on = {Purpose.PASSWORD: (user.email, user.password_hash), Purpose.EMAIL: (user.email,)}[purpose]
    return hashlib.sha256("\0".join((purpose.value, *depends_on)).encode()).digest()


def _digest(token: str) -> bytes:
    # Of 256 random bits: nothing that a slow hash would protect.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
