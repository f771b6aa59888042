"""ID tokens (OpenID Connect Core section 2). Minting does no I/O."""

import hashlib
import time
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from tokenserver.tokens.access_token import Signer, acr_of, sign_jwt

TYP: Final = "JWT"
# at_hash takes the hash of the signature's algorithm (OIDC Core section 3.1.3.6); EdDSA over Ed25519 means SHA-512.
HASHES: Final = {"RS256": hashlib.sha256, "PS256": hashlib.sha256, "ES256": hashlib.sha256, "EdDSA": hashlib.sha512}


def mint(
    signer: Signer,
    *,
    issuer: str,
    subject: str,
    client_id: str,
    lifetime: int,
    session_id: UUID,
    authenticated_at: int,
    amr: Sequence[str],
    access_token: str,
) -> str:
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": subject,
        "aud": client_id,
        "exp": now + lifetime,
        "iat": now,
        "auth_time": authenticated_at,
        "acr": acr_of(amr),
        "amr": list(amr),
        "sid": str(session_id),
        "at_hash": half_hash(signer.alg, access_token),
    }
    return sign_jwt(signer, TYP, claims)


def half_hash(alg: str, value: str) -> str:
    digest = HASHES[alg](value.encode("ascii")).digest()
    return urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode("ascii")
