"""Client secrets: random, shown once, kept as a digest; of clients that make MACs with theirs, sealed too.

A MAC (OpenID Connect Core section 9, `client_secret_jwt`) can't be checked against a digest.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES: Final = 12


def generate() -> str:
    """256 bits; the prefix lets secret scanners recognise a leaked one."""
    return "cs_" + secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def matches(secret: str, stored: bytes | None) -> bool:
    """In constant time, also for a client that has no secret."""
    return hmac.compare_digest(digest(secret), stored or bytes(32)) and stored is not None


def seal(secret: str, keys: Sequence[bytes], client_id: str) -> bytes:
    """By AES-256-GCM under the first key; it opens for this client alone."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(keys[0]).encrypt(nonce, secret.encode(), client_id.encode())


def unseal(sealed: bytes, keys: Sequence[bytes], client_id: str) -> str | None:
    """With whichever key fits; None when none does."""
    for key in keys:
        try:
            return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], client_id.encode()).decode()
        except InvalidTag:
            continue
    return None
