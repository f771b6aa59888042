"""Tokens whose signature and claims were found good: who presents one again needn't pay for that again.

What is kept follows from the token and its key alone. Whether the key still is the issuer's, the time, and what was
revoked are asked each time.
"""

from hashlib import sha256
from typing import Final, NamedTuple

from tokenserver.verify.claims import Claims
from tokenserver.verify.jwks import PublicKey

# Of a user's token about 4 KB, so 2 MB; most users ask again within seconds, or not at all.
KEPT: Final = 512
LARGEST: Final = 4096  # characters


class Verified(NamedTuple):
    key: PublicKey
    claims: Claims


class VerifiedTokens:
    """Of one verifier. By their digests, so that no token that works lies in memory for longer than its request."""

    def __init__(self) -> None:
        self._verified: dict[bytes, Verified] = {}

    def get(self, digest: bytes) -> Verified | None:
        return self._verified.get(digest)

    def put(self, digest: bytes, verified: Verified) -> None:
        if len(self._verified) >= KEPT:
            self._verified = {}  # simpler than to know the oldest, and no dearer
        self._verified[digest] = verified


def digest_of(token: str) -> bytes | None:
    """None for what is not kept: it is no token, or too long."""
    if len(token) > LARGEST or not token.isascii():
        return None
    return sha256(token.encode()).digest()
