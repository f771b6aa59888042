"""Proof Key for Code Exchange (RFC 7636): S256 alone, since `plain` tells the secret to who reads the request."""

import hmac
import re
from collections.abc import Mapping
from typing import Final

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from tokenserver.clients.registry import Client
from tokenserver.oauth.errors import InvalidGrant, InvalidRequest

METHODS: Final = ("S256",)
# RFC 7636 sections 4.1 and 4.2: 43 to 128 unreserved characters; of a SHA-256 digest it is 43 base64url characters.
VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")


def challenge_of(client: Client, parameters: Mapping[str, str]) -> str | None:
    """The challenge of an authorization request for a code. Raises InvalidRequest."""
    challenge, method = parameters.get("code_challenge"), parameters.get("code_challenge_method")
    if challenge is None:
        if method is not None:
            raise InvalidRequest("The code_challenge is missing.")
        # RFC 9700 section 2.1.1: public clients MUST use PKCE.
        if not client.is_confidential:
            raise InvalidRequest("This client needs a code_challenge with S256.")
        return None
    # RFC 7636 section 4.3: left out it would mean `plain`.
    if method not in METHODS:
        raise InvalidRequest("The code_challenge_method must be S256.")
    if not CHALLENGE.fullmatch(challenge):
        raise InvalidRequest("The code_challenge is malformed.")
    return challenge


def verify(challenge: str | None, verifier: str | None) -> None:
    """Raises InvalidGrant unless both are absent or belong together (RFC 7636 section 4.6)."""
    if challenge is None:
        # RFC 9700 section 4.8.2: a verifier for a code without a challenge is a sign of a downgrade.
        if verifier is not None:
            raise InvalidGrant(reason="verifier_without_challenge")
        return
    if verifier is None or not VERIFIER.fullmatch(verifier):
        raise InvalidGrant(reason="no_verifier")
    if not hmac.compare_digest(create_s256_code_challenge(verifier), challenge):
        raise InvalidGrant(reason="wrong_verifier")
