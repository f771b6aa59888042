"""Secrets that must be known again, encrypted at rest: AES-256-GCM under secrets of the key ring."""

import secrets
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES: Final = 12


def seal(secret: bytes, keys: Sequence[bytes], owner: str) -> bytes:
    """Under the first key; it opens for this owner alone."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(keys[0]).encrypt(nonce, secret, owner.encode())


def unseal(sealed: bytes, keys: Sequence[bytes], owner: str) -> bytes | None:
    """With whichever key fits; None when none does."""
    for key in keys:
        try:
            return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], owner.encode())
        except InvalidTag:
            continue
    return None
