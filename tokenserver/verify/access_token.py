"""Verifies a JWT access token (RFC 9068 section 4, RFC 8725)."""

import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Final, Self

from tokenserver.verify import https
from tokenserver.verify.authentication import Authentication
from tokenserver.verify.claims import Claims, check_times, read_claims
from tokenserver.verify.compact import decode, parse
from tokenserver.verify.errors import InvalidToken
from tokenserver.verify.https import Fetch
from tokenserver.verify.jwks import ALGORITHMS, KeySource
from tokenserver.verify.metadata import Metadata, issuer_keys
from tokenserver.verify.revocation_list import RevocationList, Revocations
from tokenserver.verify.verified import Verified, VerifiedTokens, digest_of

MAX_LEEWAY: Final = 60


class Verifier:
    """Accepts the tokens of one issuer for one audience. Safe to share between threads.

    `leeway`: seconds by which clocks may differ. `revocations`: the list of what died early; without it a token is
    accepted until it expires. `check` is called with the claims of each token that passed all
    else and may raise, for instance InvalidToken for a revoked one. `accept_bound`: whether tokens bound to a key
    (`cnf`) pass, which is safe only where the caller demands proof of that key. `any_audience`: for the issuer
    itself, which is asked about tokens for every resource; a resource must never set it.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        keys: KeySource,
        leeway: float = 30,
        algorithms: Collection[str] = ALGORITHMS,
        accept_bound: bool = False,
        any_audience: bool = False,
        revocations: RevocationList | None = None,
        check: Callable[[Claims], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not issuer or not audience:
            raise ValueError("issuer and audience must not be empty")
        if not 0 <= leeway <= MAX_LEEWAY:
            raise ValueError(f"leeway must be from 0 to {MAX_LEEWAY} seconds")
        if not algorithms or not set(algorithms) <= set(ALGORITHMS):
            raise ValueError("algorithms must be some of " + ", ".join(ALGORITHMS))
        self.issuer = issuer
        self.audience = audience
        self._keys = keys
        self._leeway = leeway
        self._algorithms = frozenset(algorithms)
        self._accept_bound = accept_bound
        self._expected_audience = None if any_audience else audience
        self.revocations = revocations
        self._check = check
        self._clock = clock
        self._verified = VerifiedTokens()

    @classmethod
    def for_issuer(
        cls,
        issuer: str,
        audience: str,
        *,
        leeway: float = 30,
        revocations: Revocations | None = None,
        check: Callable[[Claims], None] | None = None,
        fetch: Fetch | None = None,
    ) -> Self:
        """Finds keys and list by the issuer's metadata (RFC 8414), which is read when the first token comes.
        `revocations`: how to keep up with that list."""
        metadata = Metadata(issuer, fetch or partial(https.fetch, timeout=5))
        keys = issuer_keys(issuer, fetch=fetch, metadata=metadata)
        revoked = None
        if revocations is not None:
            uri = metadata.revocation_list_uri
            revoked = RevocationList(issuer=issuer, uri=uri, keys=keys, options=revocations)
        return cls(issuer=issuer, audience=audience, keys=keys, leeway=leeway, revocations=revoked, check=check)

    def verify(self, token: str) -> Claims:
        """TokenError for a token that must not be accepted, Unavailable when that can't be known."""
        digest = digest_of(token)
        claims = self._again(digest) if digest else None
        if claims is None:
            verified = self._verify(token)
            claims = verified.claims
            if digest:
                self._verified.put(digest, verified)
        if self.revocations is not None:
            self.revocations.check(claims, token)
        if self._check is not None:
            self._check(claims)
        return claims

    def _again(self, digest: bytes) -> Claims | None:
        """Of a token that was verified before, if its key still is the issuer's."""
        verified = self._verified.get(digest)
        if verified is None or self._keys.find(verified.key.kid) is not verified.key:
            return None
        check_times(verified.claims.raw, now=self._clock(), leeway=self._leeway)
        return verified.claims

    def _verify(self, token: str) -> Verified:
        jws = parse(token)
        alg, kid = jws.header
        # RFC 8725 section 3.1: the algorithm is ours to choose, before any key is looked for.
        if alg not in self._algorithms:
            raise InvalidToken("alg is not allowed")
        key = self._keys.find(kid)
        if key is None:
            raise InvalidToken(f"unknown kid {kid!a}")
        # RFC 8725 section 3.1: a key is used with its own algorithm alone.
        if key.alg != alg:
            raise InvalidToken("alg is not the key's")
        if not key.verify(jws.signature, jws.signing_input):
            raise InvalidToken("wrong signature")
        return Verified(key, self._read(jws.payload))

    def require(self, claims: Claims, authentication: Authentication) -> None:
        """InsufficientUserAuthentication unless the user signed in like that."""
        authentication.check(claims, now=self._clock(), leeway=self._leeway)

    def _read(self, payload: bytes) -> Claims:
        try:
            decoded = decode(payload)
        except ValueError as error:
            raise InvalidToken(f"payload: {error}") from None
        claims = read_claims(
            decoded, issuer=self.issuer, audience=self._expected_audience, now=self._clock(), leeway=self._leeway
        )
        # RFC 8705 section 3, RFC 9449 section 7.2: a bound token without its proof may be a stolen one.
        if "cnf" in claims.raw and not self._accept_bound:
            raise InvalidToken("bound to a key that was not proven")
        return claims
