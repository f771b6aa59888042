"""A client's public keys: a JWK Set (RFC 7517 section 5), registered by value (RFC 7591 section 2)."""

import json
from collections.abc import Iterator, Mapping, Sequence
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
# What each kind of key can do (RFC 7518 sections 3.1 and 4.1, RFC 8037, RFC 9864), and what that is for (`use`).
RSA_ALGS: Final = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "sig"),
    **dict.fromkeys(("RSA-OAEP", "RSA-OAEP-256", "RSA-OAEP-384", "RSA-OAEP-512"), "enc"),
}
ECDH_ALGS: Final = dict.fromkeys(("ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A192KW", "ECDH-ES+A256KW"), "enc")
ALGS: Final[Mapping[tuple[Any, Any], Mapping[str, str]]] = {
    ("RSA", None): RSA_ALGS,
    ("EC", "P-256"): {"ES256": "sig"} | ECDH_ALGS,
    ("EC", "P-384"): {"ES384": "sig"} | ECDH_ALGS,
    ("EC", "P-521"): {"ES512": "sig"} | ECDH_ALGS,
    ("OKP", "Ed25519"): {"EdDSA": "sig", "Ed25519": "sig"},
}
# RFC 7517 section 4: members that are not understood are ignored; here they are not even kept.
ABOUT: Final = ("kty", "kid", "use", "key_ops", "alg")


def faults(jwks: Mapping[str, Any]) -> list[FieldError]:
    if len(json.dumps(jwks)) > MAX_BYTES:
        return [FieldError("jwks", "At most 16 KiB.")]
    keys = jwks.get("keys")
    if not isinstance(keys, list) or not 1 <= len(keys) <= MAX_KEYS:
        return [FieldError("jwks", f"A JWK Set: its member keys lists 1 to {MAX_KEYS} public keys.")]
    found = ((position, fault(jwk)) for position, jwk in enumerate(keys))
    errors = [FieldError(f"jwks.keys.{position}", fault) for position, fault in found if fault]
    return errors or [
        FieldError(f"jwks.keys.{position}", "Each key once, and each kid.") for position in _repeated(keys)
    ]


def understood(jwks: Mapping[str, Any]) -> dict[str, Any]:
    """Of a set without faults, what is kept."""
    return {"keys": [{name: jwk[name] for name in _members(jwk) if name in jwk} for jwk in jwks["keys"]]}


def thumbprints(jwks: Mapping[str, Any]) -> list[str]:
    """RFC 7638; of a set without faults."""
    return [_import(jwk).thumbprint() for jwk in jwks["keys"]]


def _repeated(keys: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    """RFC 7517 section 4.5: a kid tells keys apart; and what one key signed must not be taken for another's."""
    seen: set[tuple[str, str]] = set()
    for position, jwk in enumerate(keys):
        names = {("thumbprint", _import(jwk).thumbprint()), *([("kid", jwk["kid"])] if "kid" in jwk else [])}
        if not seen.isdisjoint(names):
            yield position
        seen |= names


def fault(jwk: object) -> str | None:
    """What keeps it from being a public key of a kind known here."""
    if not isinstance(jwk, dict):
        return "An object."
    if not PRIVATE.isdisjoint(jwk):
        return "A public key: private parts and shared secrets are for nobody else to know."
    if not all(isinstance(jwk[name], str) for name in ("kty", "crv", "kid", "use", "alg") if name in jwk):
        return "Its members kty, crv, kid, use and alg are strings."
    if not isinstance(jwk.get("key_ops", []), list):
        return "Its member key_ops is a list."
    kind = jwk.get("kty"), jwk.get("crv")
    if kind not in KINDS:
        return "RSA, EC with P-256, P-384 or P-521, or OKP with Ed25519."
    # RFC 8725 section 3.1: a key serves one algorithm; `none` and those of shared secrets are no key's.
    if "alg" in jwk and jwk["alg"] not in ALGS[kind]:
        return "Its alg is one that this kind of key has."
    if "alg" in jwk and jwk.get("use", ALGS[kind][jwk["alg"]]) != ALGS[kind][jwk["alg"]]:
        return "Its alg is for its use."
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
