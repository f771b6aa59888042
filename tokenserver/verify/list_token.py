"""The signed form of a revocation list: a JWT of its own kind (RFC 7519, RFC 8725 section 3.11).

Its times and the rules for keeping it are those of a Status List Token (draft-ietf-oauth-status-list); what it
lists is described in `revoked`.
"""

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from tokenserver.verify.claims import date
from tokenserver.verify.compact import decode, parse
from tokenserver.verify.errors import InvalidToken
from tokenserver.verify.json_object import json_object
from tokenserver.verify.jwks import KeySource
from tokenserver.verify.revoked import KINDS, Moments, Revoked

TYP: Final = "revocation-list+jwt"
TYPES: Final = frozenset({TYP, f"application/{TYP}"})
# Hundreds of thousands of sessions that ended within minutes.
MAX_LIST: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ListToken:
    """`iat`: all that was revoked up to then is in it. `exp`: from then on it says nothing. `ttl`: seconds after
    which a newer one is worth asking for."""

    iat: float
    exp: float
    ttl: float
    revoked: Revoked


def read_list(token: str, *, issuer: str, uri: str, keys: KeySource, now: float, leeway: float) -> ListToken:
    """InvalidToken for what isn't the list that `issuer` publishes at `uri`, or for one of another time.
    KeysUnavailable when that can't be known."""
    jws = parse(token, TYPES, limit=MAX_LIST)
    key = keys.find(jws.header.kid)
    # RFC 8725 section 3.1: a key is used with its own algorithm alone.
    if key is None or key.alg != jws.header.alg or not key.verify(jws.signature, jws.signing_input):
        raise InvalidToken("not signed by a key of the issuer")
    try:
        claims = json_object(decode(jws.payload))
    except ValueError as error:
        raise InvalidToken(f"payload: {error}") from None
    # The draft, section 5.1: `sub` is the URI of the list, so that no list passes for another one.
    if claims.get("iss") != issuer or claims.get("sub") != uri:
        raise InvalidToken("a list of another issuer or place")
    iat, exp, ttl = date(claims, "iat"), date(claims, "exp"), date(claims, "ttl")
    if exp <= now - leeway or iat > now + leeway or exp <= iat:
        raise InvalidToken("expired, or from the future")
    return ListToken(iat, exp, ttl, _revoked(claims))


def to_json(revoked: Revoked) -> dict[str, Any]:
    """The member `revoked`: by kind and digest, in base64url."""
    named = {kind: {encode(name): at for name, at in getattr(revoked, kind).items()} for kind in KINDS}
    return {**named, "everything": revoked.everything}


def encode(name: bytes) -> str:
    return urlsafe_b64encode(name).rstrip(b"=").decode("ascii")


def _revoked(claims: Mapping[str, Any]) -> Revoked:
    """Kinds that it doesn't know are left out, as in an issuer's later version."""
    told = claims.get("revoked")
    if not isinstance(told, dict):
        raise InvalidToken("nothing is said of what was revoked")
    moments = {kind: _moments(told.get(kind)) for kind in KINDS}
    everything = told.get("everything")
    if type(everything) is not int:
        raise InvalidToken("everything is no moment")
    return Revoked(**moments, everything=everything)


def _moments(told: object) -> Moments:
    if not isinstance(told, dict) or not {int}.issuperset(map(type, told.values())):
        raise InvalidToken("no moments")
    try:
        return MappingProxyType({decode(name.encode("ascii")): at for name, at in told.items()})
    except ValueError:
        raise InvalidToken("a name is no digest") from None
