"""The issuer's public keys: a JWK Set (RFC 7517), each key bound to one algorithm (RFC 8725 section 3.1)."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

from tokenserver.verify import https
from tokenserver.verify.cached import Cached
from tokenserver.verify.json_object import json_object

# kty and crv decide which algorithms a key may have; the first is meant when the JWK names none.
ALGORITHMS_OF: Final[Mapping[tuple[Any, Any], tuple[str, ...]]] = {
    ("RSA", None): ("RS256", "PS256"),
    ("EC", "P-256"): ("ES256",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
ALGORITHMS: Final = tuple(alg for algs in ALGORITHMS_OF.values() for alg in algs)
# RFC 7518 sections 6.2.2 and 6.3.2, RFC 8037 section 2: the members of a private key.
PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_SHA256: Final = SHA256()
# RFC 7518 sections 3.3 and 3.5: the salt is as long as the hash.
_RSA_SCHEMES: Final = {"RS256": PKCS1v15(), "PS256": PSS(MGF1(_SHA256), _SHA256.digest_size)}
_SIGNATURES: Final = {alg: JWSRegistry.algorithms[alg] for alg in ALGORITHMS}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`key` verifies signatures made with `alg`, and with no other algorithm."""

    kid: str
    alg: str
    key: RSAKey | ECKey | OKPKey
    _check: Callable[[bytes, bytes], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_check", _check_with(self.alg, self.key))

    def verify(self, signature: bytes, signing_input: bytes) -> bool:
        return self._check(signature, signing_input)


def _check_with(alg: str, key: RSAKey | ECKey | OKPKey) -> Callable[[bytes, bytes], bool]:
    if isinstance(key, RSAKey):
        public, scheme = key.public_key, _RSA_SCHEMES[alg]

        def check(signature: bytes, signing_input: bytes) -> bool:
            # Half of the time that it takes through joserfc, which looks for the key's operations each time.
            try:
                public.verify(signature, signing_input, scheme, _SHA256)
            except InvalidSignature:
                return False
            return True

        return check
    algorithm = _SIGNATURES[alg]
    return lambda signature, signing_input: algorithm.verify(signing_input, signature, key)


class KeySource(Protocol):
    """Where a verifier finds keys. `find` raises KeysUnavailable when it can't know."""

    def find(self, kid: str) -> PublicKey | None: ...


def public_key(jwk: object) -> PublicKey | None:
    """The key of a JWK, or None for one that must not verify access tokens (RFC 7517 section 5: ignore those)."""
    if not isinstance(jwk, Mapping) or not PRIVATE.isdisjoint(jwk):
        # Whoever publishes a private key lets everybody sign with it.
        return None
    kid, kty, crv = jwk.get("kid"), jwk.get("kty"), jwk.get("crv")
    algorithms = ALGORITHMS_OF.get((kty, crv), ()) if isinstance(kty, str) and isinstance(crv, str | None) else ()
    alg = jwk.get("alg", algorithms[0] if algorithms else None)
    if not isinstance(kid, str) or not kid or alg not in algorithms or jwk.get("use", "sig") != "sig":
        return None
    # RFC 7517 section 4.3
    if "key_ops" in jwk and not (isinstance(jwk["key_ops"], list) and "verify" in jwk["key_ops"]):
        return None
    try:
        return PublicKey(kid, alg, _import(jwk))
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm):
        return None


def _import(jwk: Mapping[str, Any]) -> RSAKey | ECKey | OKPKey:
    match jwk["kty"]:
        case "RSA":
            # RFC 7518 section 3.3: 2048 bits or more. The first byte is not trusted to be other than zero.
            if int.from_bytes(urlsafe_b64decode(jwk["n"].encode("ascii"))).bit_length() < 2048:
                raise ValueError("RSA key below 2048 bits")
            return RSAKey.import_key({"kty": "RSA", "n": jwk["n"], "e": jwk["e"]})
        case "EC":
            return ECKey.import_key({"kty": "EC", "crv": "P-256", "x": jwk["x"], "y": jwk["y"]})
        case _:
            return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": jwk["x"]})


def _by_kid(jwks: Iterable[object]) -> dict[str, PublicKey]:
    return {key.kid: key for jwk in jwks if (key := public_key(jwk))}


class StaticKeys:
    """Keys given once, for tests and for services without network: a JWK Set, or its list of keys."""

    def __init__(self, jwks: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> None:
        self._keys = _by_kid(jwks["keys"] if isinstance(jwks, Mapping) else jwks)

    def find(self, kid: str) -> PublicKey | None:
        return self._keys.get(kid)


class JWKSKeys:
    """Keys read from `uri` (or from where `uri()` says, asked at each read).

    They are read again after the `max-age` that the server states, or else after `max_age` seconds; for an unknown
    kid at most once in `min_refetch` seconds. While the server is away or answers nonsense, the keys at hand stay.
    """

    def __init__(
        self,
        uri: str | Callable[[], str],
        *,
        max_age: float = 300,
        min_refetch: float = 30,
        timeout: float = 5,
        fetch: https.Fetch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uri = uri if callable(uri) else partial(str, https.check_uri(uri))
        self._max_age = max_age
        self._fetch = fetch or partial(https.fetch, timeout=timeout)
        self._keys = Cached(self._load, min_refetch=min_refetch, clock=clock)

    def find(self, kid: str) -> PublicKey | None:
        return self._keys.get().get(kid) or self._keys.get(missed=True).get(kid)

    def _load(self) -> tuple[dict[str, PublicKey], float]:
        document = self._fetch(self._uri())
        keys = _by_kid(json_object(document.body).get("keys", ()))
        if not keys:
            raise ValueError("no usable key in the JWK Set")
        return keys, self._max_age if document.max_age is None else document.max_age
