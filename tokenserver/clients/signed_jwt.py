"""A JWT that a client made (RFC 7519): taken apart strictly, and its times checked, whatever it is for."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from tokenserver.verify.claims import check_times
from tokenserver.verify.compact import MAX_KID, decode, header_members, take_apart
from tokenserver.verify.errors import InvalidToken
from tokenserver.verify.json_object import json_object

# FAPI 2.0 Security Profile section 5.3.2.1: up to 10 seconds ahead is accepted, more than 60 is refused.
LEEWAY: Final = 30


class InvalidJwt(Exception):
    """Not a JWT of this client that is good now. The text is for the log alone."""


@dataclass(frozen=True, slots=True)
class SignedJwt:
    """Nothing of it is verified yet. `typ`: in small letters, without `application/`; "" when it has none."""

    alg: str
    kid: str | None
    typ: str
    payload: bytes
    signing_input: bytes
    signature: bytes

    def claims(self, now: float) -> dict[str, Any]:
        """To be trusted after the signature was verified. Raises InvalidJwt: `exp`, `nbf` and `iat`, where they are
        there, must say that it is good at `now`, a unix time."""
        claims = self.unchecked_claims()
        try:
            check_times(claims, now=now, leeway=LEEWAY)
        except InvalidToken as error:
            raise InvalidJwt(error.private) from None
        return claims

    def unchecked_claims(self) -> dict[str, Any]:
        """Not even the times. Raises InvalidJwt."""
        try:
            return json_object(decode(self.payload))
        except ValueError as error:
            raise InvalidJwt(f"payload: {error}") from None


def parse(token: str, *, algs: Collection[str], typ: Collection[str] | None = None) -> SignedJwt:
    """Raises InvalidJwt. `typ`: those that will do, as `SignedJwt.typ` has them; None: any."""
    try:
        segments = take_apart(token)
        header = header_members(segments.header)
    except InvalidToken as error:
        raise InvalidJwt(error.private) from None
    except ValueError as error:
        raise InvalidJwt(f"header: {error}") from None
    alg, kid, given = header.get("alg"), header.get("kid"), header.get("typ", "")
    # RFC 8725 section 3.1: the algorithm is ours to choose, before any key is looked for.
    if not isinstance(alg, str) or alg not in algs:
        raise InvalidJwt("alg is not allowed")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID):
        raise InvalidJwt("kid is unusable")
    if not isinstance(given, str):
        raise InvalidJwt("typ is unusable")
    # RFC 7515 section 4.1.9: the prefix is left out of media types without another slash; letters have no case.
    name = given.lower().removeprefix("application/")
    # RFC 8725 section 3.11: so that no JWT that was made for something else passes.
    if typ is not None and name not in typ:
        raise InvalidJwt("typ is that of another kind of JWT")
    return SignedJwt(alg, kid, name, segments.payload, segments.signing_input, segments.signature)
