"""Between the password and the second factor: a browser carries the proof that its user knew the password."""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Final
from uuid import UUID

from tokenserver.identity.login import Proof
from tokenserver.identity.models import User
from tokenserver.oauth.browser_session import SignedIn
from tokenserver.storage.feed import now_ms
from tokenserver.storage.sql import Database

LIFETIME_MS: Final = 10 * 60 * 1000
NO_SESSION: Final = UUID(int=0)
# User and session, the moment, the password's digest; and the MAC.
PARTS: Final = (16, 16, 8, 32, 32)


class SecondSteps:
    """`secrets`: the ring's MAC secrets for this, newest first. Nothing is stored: the form holds it, and it is
    worth nothing in another browser, for another interaction, ten minutes later, or with another password."""

    def __init__(self, database: Database, secrets: Callable[[], tuple[bytes, ...]]) -> None:
        self._database = database
        self._secrets = secrets

    def begin(self, user: User, browser: str, interaction_id: str | None, within: SignedIn | None = None) -> str:
        """`within`: the session of who is signed in already, by the password alone."""
        session_id = within.session_id if within else NO_SESSION
        known = user.id.bytes + session_id.bytes + now_ms().to_bytes(8, "big") + _digest(user.password_hash)
        return urlsafe_b64encode(known + _mac(self._secrets()[0], known, browser, interaction_id)).decode()

    def read(self, text: str, browser: str, interaction_id: str | None, signed_in: SignedIn | None) -> Proof | None:
        """Of who got this far; None where it is worth nothing any more. `signed_in`: who is, in this browser."""
        try:
            raw = urlsafe_b64decode(text.encode("ascii"))
        except ValueError:
            return None
        if len(raw) != sum(PARTS):
            return None
        known, mac = raw[: -PARTS[-1]], raw[-PARTS[-1] :]
        if not any(hmac.compare_digest(_mac(s, known, browser, interaction_id), mac) for s in self._secrets()):
            return None
        user_id, session_id = UUID(bytes=known[:16]), UUID(bytes=known[16:32])
        at, password = int.from_bytes(known[32:40], "big"), known[40:]
        if now_ms() - at > LIFETIME_MS:
            return None
        if session_id != NO_SESSION and (signed_in is None or signed_in.session_id != session_id):
            return None
        user = self._database.read(lambda tx: tx.get(User, user_id))
        return Proof(user) if user is not None and _digest(user.password_hash) == password else None


def _digest(password_hash: str) -> bytes:
    return hashlib.sha256(password_hash.encode()).digest()


def _mac(secret: bytes, known: bytes, browser: str, interaction_id: str | None) -> bytes:
    return hmac.digest(secret, b"\0".join((known, browser.encode(), (interaction_id or "").encode())), "sha256")
