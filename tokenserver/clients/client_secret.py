"""Client secrets: random, shown once, kept as a digest; of clients that make MACs with theirs, sealed too.

A MAC (OpenID Connect Core section 9, `client_secret_jwt`) can't be checked against a digest.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from tokenserver.storage import sealing


def generate() -> str:
    """256 bits; the prefix lets secret scanners recognise a leaked one."""
    return "cs_" + secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def matches(secret: str, stored: bytes | None) -> bool:
    """In constant time, also for a client that has no secret."""
    return hmac.compare_digest(digest(secret), stored or bytes(32)) and stored is not None


def seal(secret: str, keys: Sequence[bytes], client_id: str) -> bytes:
    """It opens for this client alone."""
    return sealing.seal(secret.encode(), keys, client_id)


def unseal(sealed: bytes, keys: Sequence[bytes], client_id: str) -> str | None:
    """With whichever key fits; None when none does."""
    opened = sealing.unseal(sealed, keys, client_id)
    return None if opened is None else opened.decode()
