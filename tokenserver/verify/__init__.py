"""Verifies this server's access tokens: the part that a resource server installs.

It owns the rules of RFC 9068, RFC 8725 and RFC 6750 on the receiving side, the cache of the issuer's keys, and the
doors for Flask (`verify.flask`), Django (`verify.django`), Starlette and FastAPI (`verify.starlette`), WSGI
(`verify.wsgi`) and ASGI (`verify.asgi`). It imports nothing else of tokenserver. Issuing, signing and revoking live
elsewhere.

    verifier = Verifier.for_issuer("https://id.example", audience="https://api.example")
    try:
        claims = verifier.verify(token)
    except TokenError as refusal:
        status, challenge = refusal.status, refusal.challenge()
"""

from tokenserver.verify.access_token import Verifier
from tokenserver.verify.claims import Claims
from tokenserver.verify.errors import KeysUnavailable, Refusal, RevocationsUnavailable, TokenError, Unavailable
from tokenserver.verify.introspection import Introspection
from tokenserver.verify.jwks import JWKSKeys, StaticKeys
from tokenserver.verify.revocation_list import RevocationList, Revocations

__all__ = [
    "Claims",
    "Introspection",
    "JWKSKeys",
    "KeysUnavailable",
    "Refusal",
    "RevocationList",
    "Revocations",
    "RevocationsUnavailable",
    "StaticKeys",
    "TokenError",
    "Unavailable",
    "Verifier",
]
