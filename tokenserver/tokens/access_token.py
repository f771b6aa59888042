"""Access tokens: RFC 9068 JWTs. Minting does no I/O."""

import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from tokenserver.compact_json import to_json
from tokenserver.storage.sql import ordered_id_text

TYP: Final = "at+jwt"  # RFC 9068 section 2.1
# Authentication contexts (OpenID Connect Core section 2, `acr`), each better than the one before.
ONE_FACTOR: Final = "1"
TWO_FACTORS: Final = "2"
ACR_VALUES: Final = (ONE_FACTOR, TWO_FACTORS)
# Of 4 KiB for the whole token, what is left beside the signature by a key of 4096 bits.
BUDGET: Final = 4096 - 684


class Signer(Protocol):
    @property
    def kid(self) -> str: ...
    @property
    def alg(self) -> str: ...
    def sign(self, signing_input: bytes) -> bytes: ...


class Minted(NamedTuple):
    token: str
    roles_omitted: bool


def mint(
    signer: Signer,
    *,
    issuer: str,
    subject: str,
    audience: Sequence[str],
    client_id: str,
    scope: str,
    lifetime: int,
    roles: Sequence[str] = (),
    session_id: UUID | None = None,
    family_id: UUID | None = None,
    authenticated_at: int | None = None,
    amr: Sequence[str] = (),
    userinfo_claims: Sequence[str] = (),
    act: Mapping[str, Any] | None = None,
    expires_by: int | None = None,
) -> Minted:
    """A signed token (RFC 9068 section 2.2) of `lifetime` s, at the most until `expires_by`, a NumericDate.

    `family_id` goes into the private claim `fam`, `userinfo_claims` (asked for by name, OpenID Connect Core section
    5.5) into `uic`. `act`: who acts for the subject (RFC 8693 section 4.1).

    Roles that would make it longer than 4 KiB are left out, and the claim `roles_omitted` says so.
    """
    issued_at_ms = time.time_ns() // 1_000_000
    issued_at = issued_at_ms // 1000
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": subject,
        "aud": audience[0] if len(audience) == 1 else list(audience),
        "exp": issued_at + lifetime if expires_by is None else min(issued_at + lifetime, expires_by),
        "iat": issued_at,
        "jti": new_jti(issued_at_ms),
        "client_id": client_id,
        "scope": scope,
        "roles": list(roles),
    }
    if session_id is not None:
        claims["sid"] = str(session_id)
    if family_id is not None:
        claims["fam"] = str(family_id)
    if act is not None:
        claims["act"] = act
    if userinfo_claims:
        claims["uic"] = list(userinfo_claims)
    if authenticated_at is not None:
        claims |= {"auth_time": authenticated_at, "acr": acr_of(amr), "amr": list(amr)}
    signing_input = _signing_input(signer, TYP, claims)
    too_long = bool(roles) and len(signing_input) > BUDGET
    if too_long:
        # Proxies refuse headers of more than some KiB (HTTP 431). Introspection tells the roles.
        signing_input = _signing_input(signer, TYP, claims | {"roles": [], "roles_omitted": True})
    return Minted(_signed(signer, signing_input), too_long)


def sign_jwt(signer: Signer, typ: str, claims: Mapping[str, Any]) -> str:
    return _signed(signer, _signing_input(signer, typ, claims))


def _signed(signer: Signer, signing_input: bytes) -> str:
    return (b"%b.%b" % (signing_input, _base64url(signer.sign(signing_input)))).decode("ascii")


def _signing_input(signer: Signer, typ: str, claims: Mapping[str, Any]) -> bytes:
    return b"%b.%b" % (_header(typ, signer.alg, signer.kid), _segment(claims))


@lru_cache(maxsize=64)
def _header(typ: str, alg: str, kid: str) -> bytes:
    return _segment({"typ": typ, "alg": alg, "kid": kid})


def acr_of(amr: Sequence[str]) -> str:
    """TWO_FACTORS where a second factor took part (RFC 8176 section 2, `mfa`)."""
    return TWO_FACTORS if "mfa" in amr else ONE_FACTOR


def new_jti(issued_at_ms: int) -> str:
    """A UUID of version 7 (RFC 9562 section 5.7): it carries the milliseconds that `iat`, in whole seconds as
    strangers' verifiers expect it, can't."""
    return ordered_id_text(issued_at_ms)


def _segment(value: Mapping[str, Any]) -> bytes:
    return _base64url(to_json(value))


def _base64url(octets: bytes) -> bytes:
    """RFC 7515 section 2."""
    return urlsafe_b64encode(octets).rstrip(b"=")
