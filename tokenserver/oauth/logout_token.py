"""Logout tokens (OIDC Back-Channel Logout section 2.4). Minting does no I/O."""

import time
from typing import Any, Final
from uuid import UUID

from tokenserver.tokens.access_token import Signer, sign_jwt

TYP: Final = "logout+jwt"
EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
# Section 2.4: preferably at most two minutes in the future. Each attempt gets a token of its own.
LIFETIME_SECONDS: Final = 120


def mint(signer: Signer, *, issuer: str, subject: str, client_id: str, session_id: UUID, delivery_id: UUID) -> str:
    """`delivery_id`: the `jti`, the same in every attempt to tell the client of this end."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": subject,
        "aud": client_id,
        "iat": now,
        "exp": now + LIFETIME_SECONDS,
        "jti": str(delivery_id),
        "sid": str(session_id),
        "events": {EVENT: {}},
    }
    # There is no nonce (section 2.4: it MUST NOT be there), so that this passes for no ID token.
    return sign_jwt(signer, TYP, claims)
