"""An ID token that comes back as a hint (OIDC Core section 3.1.2.1, RP-Initiated Logout section 2)."""

from dataclasses import dataclass
from typing import Final

from tokenserver.verify.compact import MAX_TOKEN, REFUSED, decode
from tokenserver.verify.json_object import json_object
from tokenserver.verify.jwks import KeySource


@dataclass(frozen=True, slots=True)
class Hint:
    """`subject` as the client knows the user. `session_id`: the `sid`, where there is one."""

    subject: str
    client_id: str
    session_id: str | None


TYP: Final = "JWT"


def read(token: str, keys: KeySource, issuer: str) -> Hint | None:
    """None for what this issuer didn't sign as an ID token. An expired one is as good: RP-Initiated Logout
    section 2 and OIDC Core section 3.1.2.1 ask for nothing else than that it was issued here."""
    if len(token) > MAX_TOKEN or token.count(".") != 2:
        return None
    try:
        signing_input, _, signature = token.encode("ascii").rpartition(b".")
        encoded_header, _, payload = signing_input.partition(b".")
        header, claims = json_object(decode(encoded_header)), json_object(decode(payload))
        kid, alg = header.get("kid"), header.get("alg")
        # RFC 8725 section 3.12: no other kind of JWT that this server signs passes for an ID token.
        if header.get("typ") != TYP or not isinstance(kid, str) or not REFUSED.isdisjoint(header):
            return None
        key = keys.find(kid)
        if key is None or key.alg != alg or not key.verify(decode(signature), signing_input):
            return None
    except ValueError:
        return None
    subject, audience, session_id = claims.get("sub"), claims.get("aud"), claims.get("sid")
    # Signed userinfo has issuer, audience and subject too, and never expires.
    if claims.get("iss") != issuer or "exp" not in claims:
        return None
    if not isinstance(subject, str) or not isinstance(audience, str):
        return None
    return Hint(subject, audience, session_id if isinstance(session_id, str) else None)
