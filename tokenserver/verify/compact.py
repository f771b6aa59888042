"""A JWS in compact serialization, taken apart strictly (RFC 7515 section 7.1, RFC 8725)."""

from binascii import a2b_base64
from functools import lru_cache
from typing import Any, Final, NamedTuple

from tokenserver.verify.errors import InvalidToken
from tokenserver.verify.json_object import json_object

MAX_TOKEN: Final = 16 * 1024
MAX_KID: Final = 255
TYPES: Final = frozenset({"at+jwt", "application/at+jwt"})
# A header with one of these asks for what is never done here, so the token is not one of the issuer's:
# an extension (RFC 7515 section 4.1.11, none is understood), an unencoded payload (RFC 7797), a key that the token
# brings along or a place to fetch one from (RFC 8725 section 3.10), or what belongs to encryption (RFC 7516, 7518).
REFUSED: Final = frozenset({"crit", "b64", "jku", "jwk", "x5u", "x5c", "zip", "enc", "epk", "p2c", "p2s"})

# The characters of plain base64 are sent to one that no base64 has, so that they are refused.
TO_BASE64: Final = bytes.maketrans(b"-_+/=", b"+/***")
PADDING: Final = (b"", b"", b"==", b"=")
# By the length of the last group; a single loose character can't end anything.
LAST_CHARACTERS: Final = (
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
    (),
    b"AQgw",
    b"AEIMQUYcgkosw048",
)


class Header(NamedTuple):
    alg: str
    kid: str


class Compact(NamedTuple):
    """Nothing of it is verified yet; `payload` is still encoded."""

    header: Header
    payload: bytes
    signing_input: bytes
    signature: bytes


class Segments(NamedTuple):
    """`header` and `payload` are still encoded."""

    header: bytes
    payload: bytes
    signing_input: bytes
    signature: bytes


def parse(token: str, types: frozenset[str] = TYPES, *, limit: int = MAX_TOKEN) -> Compact:
    """InvalidToken for anything but three segments, at most `limit` characters, under a header whose `typ` is one
    of `types`: those of an access token when not given."""
    segments = take_apart(token, limit)
    try:
        return Compact(_header(segments.header, types), *segments[1:])
    except ValueError as error:
        raise InvalidToken(f"not a compact JWS: {error}") from None


def take_apart(token: str, limit: int = MAX_TOKEN) -> Segments:
    """InvalidToken for anything but three segments."""
    if len(token) > limit:
        raise InvalidToken("too long")
    # Four dots would be a JWE (RFC 7516 section 7.1), a brace the JSON serialization; neither is looked at.
    if token.count(".") != 2:
        raise InvalidToken("not three segments")
    try:
        signing_input, _, signature = token.encode("ascii").rpartition(b".")
        header, _, payload = signing_input.partition(b".")
        return Segments(header, payload, signing_input, decode(signature))
    except ValueError as error:
        raise InvalidToken(f"not a compact JWS: {error}") from None


def decode(segment: bytes) -> bytes:
    """ValueError for anything but the one unpadded base64url spelling of some bytes (RFC 7515 section 2)."""
    loose = len(segment) % 4
    # RFC 4648 section 3.5: the bits that the last character has too many are zero. Else a token would have several
    # spellings with the same signature, and a list of revoked spellings would miss them.
    if segment[-1:] not in LAST_CHARACTERS[loose]:
        raise ValueError("not canonical base64url")
    return a2b_base64(segment.translate(TO_BASE64) + PADDING[loose], strict_mode=True)


# An issuer sends the same few headers again and again. Refusals raise, so they are never kept.
@lru_cache(maxsize=64)
def _header(segment: bytes, types: frozenset[str]) -> Header:
    header = header_members(segment)
    typ, alg, kid = header.get("typ"), header.get("alg"), header.get("kid")
    # RFC 9068 section 4: so that no ID token, logout token or other JWT of the issuer passes for an access token.
    if not isinstance(typ, str) or typ.lower() not in types:
        raise InvalidToken("typ is not " + min(types, key=len))
    if not isinstance(alg, str) or not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        raise InvalidToken("alg or kid is missing or unusable")
    return Header(alg, kid)


def header_members(segment: bytes) -> dict[str, Any]:
    """ValueError for what is no JSON object, InvalidToken for one that asks for what is refused."""
    header = json_object(decode(segment))
    if not REFUSED.isdisjoint(header):
        raise InvalidToken("header asks for " + ", ".join(sorted(REFUSED.intersection(header))))
    return header
