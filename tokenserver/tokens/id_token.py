"""ID tokens (OpenID Connect Core section 2). Minting does no I/O."""

import hashlib
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from joserfc import jwe
from joserfc.jwk import ECKey, RSAKey

from tokenserver.tokens.access_token import Signer, acr_of, sign_jwt

TYP: Final = "JWT"
# What `mint` puts in, beside claims about the person.
CLAIMS: Final = (
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "auth_time",
    "acr",
    "amr",
    "sid",
    "nonce",
    "at_hash",
    "c_hash",
)
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
    nonce: str | None = None,
    access_token: str | None = None,
    code: str | None = None,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """`access_token`, `code`: what goes with it in the same answer. `about`: claims about the person."""
    now = int(time.time())
    claims: dict[str, Any] = {
        **about,
        "iss": issuer,
        "sub": subject,
        "aud": client_id,
        "exp": now + lifetime,
        "iat": now,
        "auth_time": authenticated_at,
        "acr": acr_of(amr),
        "amr": list(amr),
        "sid": str(session_id),
    }
    # Section 3.1.2.1: passed through unmodified, from the authentication request alone
    if nonce is not None:
        claims["nonce"] = nonce
    # Sections 3.1.3.6 and 3.3.2.11
    if access_token is not None:
        claims["at_hash"] = half_hash(signer.alg, access_token)
    if code is not None:
        claims["c_hash"] = half_hash(signer.alg, code)
    return sign_jwt(signer, TYP, claims)


def encrypt(signed: str, key: RSAKey | ECKey, *, alg: str, enc: str) -> str:
    """A nested JWT (RFC 7519 section 11.2): signed first, then encrypted, for who holds the private key."""
    # RFC 7519 section 5.2: the content type says that it is nested.
    header = {"alg": alg, "enc": enc, "cty": "JWT"} | ({"kid": key.kid} if key.kid else {})
    return jwe.encrypt_compact(header, signed.encode("ascii"), key, algorithms=[alg, enc])


def half_hash(alg: str, value: str) -> str:
    digest = HASHES[alg](value.encode("ascii")).digest()
    return urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode("ascii")
