"""The claims of an access token (RFC 9068 section 2.2), checked one by one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from tokenserver.verify.errors import InsufficientScope, InvalidToken
from tokenserver.verify.json_object import json_object

# The last second of the year 9999: later ones overflow datetime, and NaN and infinity fail the comparison.
MAX_DATE: Final = 253_402_300_799


@dataclass(frozen=True, slots=True)
class Claims:
    """Who may do what until when. Times are NumericDate (RFC 7519 section 2): seconds, perhaps with a fraction."""

    iss: str
    sub: str
    aud: tuple[str, ...]
    exp: float
    iat: float
    jti: str
    client_id: str
    scope: frozenset[str]
    roles: tuple[str, ...]
    sid: str | None
    auth_time: float | None
    acr: str | None
    amr: tuple[str, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    def allows(self, scope: str) -> bool:
        return scope in self.scope

    def require(self, *scopes: str) -> None:
        """InsufficientScope unless the token covers all of them."""
        if not self.scope.issuperset(scopes):
            raise InsufficientScope(scopes)


def read_claims(payload: bytes, *, issuer: str, audience: str | None, now: float, leeway: float) -> Claims:
    """InvalidToken unless `payload` holds the claims of a token by `issuer`, for `audience`, good `now`."""
    try:
        raw = json_object(payload)
    except ValueError as error:
        raise InvalidToken(f"payload: {error}") from None
    # RFC 9068 section 4: exactly the issuer, never a prefix of it, never a list that contains it.
    if raw.get("iss") != issuer:
        raise InvalidToken("iss is another issuer")
    aud = _audience(raw)
    # RFC 9068 section 4: the resource server itself must be named.
    if audience is not None and audience not in aud:
        raise InvalidToken("aud is another resource", description="The access token is for another resource.")
    exp, iat = date(raw, "exp"), date(raw, "iat")
    check_times(raw, now=now, leeway=leeway)
    return Claims(
        iss=issuer,
        sub=_text(raw, "sub"),
        aud=aud,
        exp=exp,
        iat=iat,
        jti=_text(raw, "jti"),
        client_id=_text(raw, "client_id"),
        scope=_scope(raw),
        roles=_texts(raw, "roles"),
        sid=_text(raw, "sid") if "sid" in raw else None,
        auth_time=date(raw, "auth_time") if "auth_time" in raw else None,
        acr=_text(raw, "acr") if "acr" in raw else None,
        amr=_texts(raw, "amr"),
        raw=MappingProxyType(raw),
    )


def check_times(raw: Mapping[str, Any], *, now: float, leeway: float) -> None:
    """InvalidToken unless the token is good `now`, as far as it says when it is."""
    # RFC 7519 section 4.1.4: on or after exp the token is dead; 4.1.5: before nbf it isn't born yet.
    if "exp" in raw and date(raw, "exp") <= now - leeway:
        raise InvalidToken("expired", description="The access token is expired.")
    for name in ("iat", "nbf"):
        if name in raw and date(raw, name) > now + leeway:
            raise InvalidToken(f"{name} lies in the future")


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidToken(f"{name} is not a text")
    return value


def _texts(raw: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = raw.get(name, [])
    if not isinstance(values, list) or not {str}.issuperset(map(type, values)):
        raise InvalidToken(f"{name} is not a list of texts")
    return tuple(values)


def _audience(raw: Mapping[str, Any]) -> tuple[str, ...]:
    # RFC 7519 section 4.1.3: one string, or an array of strings.
    aud = raw.get("aud")
    return (aud,) if isinstance(aud, str) else _texts(raw, "aud")


def date(raw: Mapping[str, Any], name: str) -> float:
    # `type`, not isinstance: true is an int in Python and would be 1970.
    value = raw.get(name)
    if (type(value) is not int and type(value) is not float) or not 0 <= value <= MAX_DATE:
        raise InvalidToken(f"{name} is not a date")
    return value


def _scope(raw: Mapping[str, Any]) -> frozenset[str]:
    # RFC 6749 section 3.3: delimited by spaces, and by no other white space.
    scope = raw.get("scope", "")
    if not isinstance(scope, str):
        raise InvalidToken("scope is not a text")
    return frozenset(scope.split(" ")) - {""}
