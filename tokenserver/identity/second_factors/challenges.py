"""Challenges for passkeys (WebAuthn Level 3 section 13.4.3): random, for one purpose, in one place, soon, once."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from tokenserver.identity.second_factors.models import UsedChallenge
from tokenserver.storage.feed import now_ms
from tokenserver.storage.sql import Database, Transaction, utc_now

LIFETIME: Final = timedelta(minutes=5)
NONCE_BYTES: Final = 16
TIME_BYTES: Final = 8
MAC_BYTES: Final = 32


class Challenges:
    """`keys`: the ring's MAC secrets for this, newest first. A page is shown to anybody, so nothing is stored for
    it: a challenge carries its time and a MAC. The answer is what is stored."""

    def __init__(self, database: Database, keys: Callable[[], tuple[bytes, ...]]) -> None:
        self._database = database
        self._keys = keys

    def issue(self, purpose: str) -> bytes:
        """`purpose`: what for, for whom, in which browser or session."""
        known = secrets.token_bytes(NONCE_BYTES) + now_ms().to_bytes(TIME_BYTES, "big")
        return known + _mac(self._keys()[0], known, purpose)

    def is_ours(self, challenge: bytes, purpose: str) -> bool:
        """And not too old."""
        known, mac = challenge[:-MAC_BYTES], challenge[-MAC_BYTES:]
        if len(known) != NONCE_BYTES + TIME_BYTES:
            return False
        if not any(hmac.compare_digest(_mac(key, known, purpose), mac) for key in self._keys()):
            return False
        return utc_now() < _expires_at(challenge)

    @staticmethod
    def spend(tx: Transaction, challenge: bytes) -> bool:
        """Of all who answer it at once one gets True."""
        used = UsedChallenge(digest=hashlib.sha256(challenge).digest(), expires_at=_expires_at(challenge))
        try:
            with tx.begin_nested():
                tx.add(used)
        except IntegrityError:
            return False
        return True

    def purge(self, limit: int = 1000) -> int:
        """Delete those that nobody could answer any more, at most `limit`; how many."""

        def old(tx: Transaction) -> int:
            query = select(UsedChallenge.digest).where(UsedChallenge.expires_at < utc_now()).limit(limit)
            digests = tx.scalars(query).all()
            tx.execute(delete(UsedChallenge).where(UsedChallenge.digest.in_(digests)))
            return len(digests)

        return self._database.write(old)


def _expires_at(challenge: bytes) -> datetime:
    issued = int.from_bytes(challenge[NONCE_BYTES : NONCE_BYTES + TIME_BYTES], "big")
    return datetime.fromtimestamp(issued / 1000, UTC) + LIFETIME


def _mac(key: bytes, known: bytes, purpose: str) -> bytes:
    return hmac.digest(key, known + purpose.encode(), "sha256")
