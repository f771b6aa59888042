"""Client secrets: random, shown once, kept as a digest."""

import hashlib
import hmac
import secrets


def generate() -> str:
    """256 bits; the prefix lets secret scanners recognise a leaked one."""
    return "cs_" + secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def matches(secret: str, stored: bytes | None) -> bool:
    """In constant time, also for a client that has no secret."""
    return hmac.compare_digest(digest(secret), stored or bytes(32)) and stored is not None
