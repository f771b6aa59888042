"""A client's public keys in use: registered by value or by `jwks_uri` (RFC 7591 section 2), they verify what it
signed and encrypt what is for it alone."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from threading import BoundedSemaphore, Lock
from typing import Any, Final

from joserfc.jwk import ECKey, RSAKey

from tokenserver.clients import jwks, signed_jwt
from tokenserver.clients.registry import Client
from tokenserver.clients.signed_jwt import InvalidJwt
from tokenserver.verify.cached import Cached
from tokenserver.verify.errors import KeysUnavailable
from tokenserver.verify.json_object import json_object
from tokenserver.verify.jwks import PublicKey, public_key
from tokenserver.web.fetch import Fetcher

__all__ = ["ClientKeys", "InvalidJwt", "NoKey"]

logger = logging.getLogger("tokenserver.clients")

MIN_AGE: Final = 60
MAX_AGE: Final = 24 * 3600
DEFAULT_AGE: Final = 300
REFETCH_SECONDS: Final = 10
MAX_SETS: Final = 1000
MAX_KEYS: Final = 50
# Without a kid, or with one kid for several keys, each that fits costs a verification.
MAX_CANDIDATES: Final = 4
ACCEPT: Final = "application/jwk-set+json, application/json"
# RFC 7518 section 4.1: which keys serve which of `KEY_MANAGEMENT_ALGS`, and what they may be for (RFC 7517, 4.3).
ENCRYPTING: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    "RSA-OAEP-256": ("RSA", frozenset({"wrapKey", "encrypt"})),
    "ECDH-ES": ("EC", frozenset({"deriveKey", "deriveBits"})),
}

Jwk = Mapping[str, Any]
KeySet = Sequence[Jwk]


class NoKey(Exception):
    """The client has no key for that. The text is for the log alone."""


class ClientKeys:
    """Sets behind a `jwks_uri` are kept as long as they say, from a minute to a day, and read again when a kid is
    missing, at most once in 10 seconds; while they can't be read, the old ones stay.

    `slots`: how many threads may wait for such sets at once; whoever comes then makes do with what is known.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        slots: int = 4,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetcher = fetcher
        self._clock = clock
        self._monotonic = monotonic
        self._slots = BoundedSemaphore(slots)
        self._sets: dict[str, Cached[KeySet]] = {}
        self._lock = Lock()

    def verify(
        self, client: Client, token: str, *, algs: Collection[str], typ: Collection[str] | None = None
    ) -> dict[str, Any]:
        """The claims of a compact JWS that one of the client's keys signed, and that is good now as far as it says.

        `typ`: those that will do, in small letters without `application/`, "" for none given; None: any.
        Raises InvalidJwt.
        """
        jwt = signed_jwt.parse(token, algs=algs, typ=typ)
        for keys in self._key_sets(client):
            candidates = _verifying(keys, jwt.alg, jwt.kid)
            if any(key.verify(jwt.signature, jwt.signing_input) for key in candidates):
                return jwt.claims(self._clock())
            if candidates and jwt.kid is not None:
                raise InvalidJwt("wrong signature")
        raise InvalidJwt("none of the client's keys signed it")

    def encryption_key(self, client: Client, alg: str) -> RSAKey | ECKey:
        """With its kid, where it has one. Raises NoKey."""
        for keys in self._key_sets(client, NoKey):
            found = [jwk for jwk in keys if _encrypts(jwk, alg)]
            if found:
                # One that says what it is for goes before one that leaves it open.
                jwk = min(found, key=lambda jwk: "use" not in jwk)
                kind = RSAKey if jwk["kty"] == "RSA" else ECKey
                return kind.import_key({name: jwk[name] for name in jwk if name not in {"use", "key_ops", "alg"}})
        raise NoKey(f"the client has no key for {alg}")

    def _key_sets(self, client: Client, error: type[Exception] = InvalidJwt) -> Iterator[KeySet]:
        """What is known, and then, if something was missing in it, what is read anew."""
        metadata = client.metadata
        if metadata.jwks is not None:
            yield metadata.jwks["keys"]
        elif metadata.jwks_uri is not None:
            cached = self._cached(metadata.jwks_uri)
            try:
                known = cached.get()
                yield known
                renewed = cached.get(missed=True)
            except KeysUnavailable:
                raise error("the client's jwks_uri can't be read") from None
            if renewed is not known:
                yield renewed

    def _cached(self, uri: str) -> Cached[KeySet]:
        with self._lock:
            found = self._sets.pop(uri, None) or Cached(
                lambda: self._load(uri),
                min_refetch=REFETCH_SECONDS,
                empty_retry=REFETCH_SECONDS,
                slots=self._slots,
                clock=self._monotonic,
            )
            while len(self._sets) >= MAX_SETS:
                del self._sets[next(iter(self._sets))]  # the one that was not asked for the longest
            self._sets[uri] = found
            return found

    def _load(self, uri: str) -> tuple[KeySet, float]:
        fetched = self._fetcher.get(uri, accept=ACCEPT)
        given = json_object(fetched.body).get("keys")
        if not isinstance(given, list):
            raise ValueError("not a JWK Set")  # noqa: TRY004 - one exception for all bad input
        # RFC 7517 section 5: keys that are not understood are ignored.
        keys = [jwk for jwk in given[:MAX_KEYS] if jwks.fault(jwk) is None]
        age = DEFAULT_AGE if fetched.max_age is None else fetched.max_age
        return jwks.understood({"keys": keys})["keys"], min(max(age, MIN_AGE), MAX_AGE)


def _verifying(keys: KeySet, alg: str, kid: str | None) -> list[PublicKey]:
    """Those under this kid, or all, that may have made a signature by `alg`."""
    wanted = [jwk for jwk in keys if kid is None or jwk.get("kid") == kid]
    # A key without a kid, or without an algorithm of its own, is taken at the token's word.
    found = (public_key({"kid": "-", "alg": alg, **jwk}) for jwk in wanted)
    return [key for key in found if key is not None and key.alg == alg][:MAX_CANDIDATES]


def _encrypts(jwk: Jwk, alg: str) -> bool:
    kty, operations = ENCRYPTING[alg]
    is_meant = jwk.get("use", "enc") == "enc" and jwk.get("alg", alg) == alg
    return jwk["kty"] == kty and is_meant and not operations.isdisjoint(jwk.get("key_ops", operations))
