"""A client's public keys: a JWK Set (RFC 7517 section 5), registered by value (RFC 7591 section 2)."""

import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.util import urlsafe_b64decode

from tokenserver.errors import FieldError
from tokenserver.verify.jwks import PRIVATE

MAX_BYTES: Final = 16 * 1024
MAX_KEYS: Final = 10
# RFC 7518 section 3.3: 2048 bits or more. A modulus without end makes every verification slow.
RSA_BITS: Final = range(2048, 8193)
Kind = type[RSAKey] | type[ECKey] | type[OKPKey]
KINDS: Final[Mapping[tuple[Any, Any], tuple[Kind, tuple[str, ...]]]] = {
    ("RSA", None): (RSAKey, ("n", "e")),
    ("EC", "P-256"): (ECKey, ("crv", "x", "y")),
    ("EC", "P-384"): (ECKey, ("crv", "x", "y")),
    ("EC", "P-521"): (ECKey, ("crv", "x", "y")),
    ("OKP", "Ed25519"): (OKPKey, ("crv", "x")),
}
# RFC 7517 section 4: members that are not understood are ignored; here they are not even kept.
ABOUT: Final = ("kty", "kid", "use", "key_ops", "alg")


def faults(jwks: Mapping[str, Any]) -> list[FieldError]:
    if len(json.dumps(jwks)) > MAX_BYTES:
        return [FieldError("jwks", "At most 16 KiB.")]
    keys = jwks.get("keys")
    if not isinstance(keys, list) or not 1 <= len(keys) <= MAX_KEYS:
        return [FieldError("jwks", f"A JWK Set: its member keys lists 1 to {MAX_KEYS} public keys.")]
    found = ((position, _fault(jwk)) for position, jwk in enumerate(keys))
    return [FieldError(f"jwks.keys.{position}", fault) for position, fault in found if fault]


def understood(jwks: Mapping[str, Any]) -> dict[str, Any]:
    """Of a set without faults, what is kept."""
    return {"keys": [{name: jwk[name] for name in _members(jwk) if name in jwk} for jwk in jwks["keys"]]}


def thumbprints(jwks: Mapping[str, Any]) -> list[str]:
    """RFC 7638; of a set without faults."""
    return [_import(jwk).thumbprint() for jwk in jwks["keys"]]


def _fault(jwk: object) -> str | None:
    if not isinstance(jwk, dict):
        return "An object."
    if not PRIVATE.isdisjoint(jwk):
        return "A public key: private parts and shared secrets are for nobody else to know."
    if not all(isinstance(jwk[name], str) for name in ("kty", "crv", "kid", "use", "alg") if name in jwk):
        return "Its members kty, crv, kid, use and alg are strings."
    if not isinstance(jwk.get("key_ops", []), list):
        return "Its member key_ops is a list."
    if (jwk.get("kty"), jwk.get("crv")) not in KINDS:
        return "RSA, EC with P-256, P-384 or P-521, or OKP with Ed25519."
    try:
        if "n" in jwk and int.from_bytes(urlsafe_b64decode(jwk["n"].encode("ascii"))).bit_length() not in RSA_BITS:
            return "RSA keys have 2048 to 8192 bits."
        _import(jwk)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm):
        return "Not a valid public key (RFC 7518 section 6)."
    return None


def _members(jwk: Mapping[str, Any]) -> tuple[str, ...]:
    return (*ABOUT, *KINDS[jwk["kty"], jwk.get("crv")][1])


def _import(jwk: Mapping[str, Any]) -> RSAKey | ECKey | OKPKey:
    kind, _ = KINDS[jwk["kty"], jwk.get("crv")]
    return kind.import_key({name: jwk[name] for name in _members(jwk) if name in jwk})
