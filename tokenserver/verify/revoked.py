"""What a revocation list says of a token, and when that kills it.

The list names what was revoked by digests, each with the moment of its revocation. A session, a refresh family and
a single token never come back; a client's tokens, and everybody's, are dead if issued up to that moment.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from hashlib import sha256
from types import MappingProxyType
from typing import Final
from uuid import UUID

from tokenserver.verify.claims import Claims

DIGEST_BYTES: Final = 8
# Between the moment that a client's cutoff names and that at which its issuer stopped lies the commit.
COMMIT_MS: Final = 10_000

Moments = Mapping[bytes, int]


def digest(subject: str) -> bytes:
    """How the list calls a session (`sid`), a family, a token (`jti`) or a client: the first bytes of its SHA-256.

    All of them but a client's are random, so that only who was shown one finds it.
    """
    return sha256(subject.encode()).digest()[:DIGEST_BYTES]


def issued_at_ms(jti: str, iat: float) -> int:
    """The moment of issue, which a `jti` of version 7 (RFC 9562 section 5.7) knows finer than `iat`: to the ms. The
    start of the second of `iat` for any other."""
    try:
        number = UUID(jti)
    except ValueError:
        return int(iat) * 1000
    return number.int >> 80 if number.version == 7 else int(iat) * 1000


def _none() -> Moments:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Revoked:
    """By kind and digest, moments in ms since 1970. `everything`: all that was issued up to then is dead."""

    session: Moments = field(default_factory=_none)
    family: Moments = field(default_factory=_none)
    token: Moments = field(default_factory=_none)
    client: Moments = field(default_factory=_none)
    everything: int = 0

    def hits(self, claims: Claims) -> bool:
        if self.session and claims.sid is not None and digest(claims.sid) in self.session:
            return True
        family = claims.raw.get("fam") if self.family else None
        if isinstance(family, str) and digest(family) in self.family:
            return True
        if self.token and digest(claims.jti) in self.token:
            return True
        end = self._end(claims)
        return end > 0 and issued_at_ms(claims.jti, claims.iat) <= end

    def _end(self, claims: Claims) -> int:
        """What was issued up to then is dead; 0: nothing is by that."""
        if not self.client:
            return self.everything
        # After an exchange (RFC 8693), a client's own token stands for another client than the one that holds it.
        clients = {claims.client_id} | ({claims.sub} if claims.sid is None else set())
        ends = [self.client.get(digest(client)) for client in clients]
        return max(self.everything, *(end + COMMIT_MS for end in ends if end is not None), 0)

    def adding(self, more: "Revoked", *, forgetting: int) -> "Revoked":
        """What either of the two says, but for what was revoked before the moment `forgetting`."""
        joined = {kind: _joined(getattr(self, kind), getattr(more, kind), forgetting) for kind in KINDS}
        return Revoked(**joined, everything=max(self.everything, more.everything))

    def since(self, before: "Revoked") -> Iterable[int]:
        """The moments of what it says and `before` didn't."""
        for kind in KINDS:
            known = getattr(before, kind)
            yield from (at for name, at in getattr(self, kind).items() if known.get(name, 0) < at)
        if self.everything > before.everything:
            yield self.everything


KINDS: Final = tuple(each.name for each in fields(Revoked) if each.name != "everything")


def _joined(one: Moments, other: Moments, forgetting: int) -> Moments:
    joined = dict(one)
    for name, at in other.items():
        joined[name] = max(at, joined.get(name, 0))
    return MappingProxyType({name: at for name, at in joined.items() if at > forgetting})
