"""What a refresh family is, how it is packed for Redis, and the MAC that says that this server wrote it there."""

import hashlib
import hmac
import json
import struct
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

import orjson

from tokenserver.tokens.models import RefreshFamily, Session

# RFC 2104 section 5: half of the hash, and no less than 80 bits.
MAC_BYTES: Final = 16
TERMS_BYTES: Final = 8
# User, session, `authenticated_at`, `expires_at`.
OWN: Final = struct.Struct("16s16s6s6s")


@dataclass(frozen=True, slots=True)
class Family:
    """What never changes about a family. `scope` None: whatever the user holds, as of each refresh. `claims`: the
    claims asked for by name, as JSON, or None.

    `authenticated_at`, `expires_at` in ms since 1970, `idle_lifetime` in ms.
    """

    id: UUID
    session_id: UUID
    user_id: UUID
    client_id: str
    scope: str | None
    audience: tuple[str, ...]
    authenticated_at: int
    amr: tuple[str, ...]
    expires_at: int
    idle_lifetime: int
    binding: str | None
    claims: str | None = None
    # Of all the others.
    digest: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        everything = self.id.bytes + self._own() + self._terms()
        object.__setattr__(self, "digest", hashlib.sha256(everything).digest())

    def _own(self) -> bytes:
        moments = self.authenticated_at.to_bytes(6), self.expires_at.to_bytes(6)
        return OWN.pack(self.user_id.bytes, self.session_id.bytes, *moments)

    def _terms(self) -> bytes:
        """A digest of what is the same in many families."""
        terms = (self.client_id, self.scope, self.audience, self.amr, self.idle_lifetime, self.binding, self.claims)
        return hashlib.sha256(orjson.dumps(terms)).digest()

    def mac(self, secret: bytes, generation: int) -> bytes:
        """Of the family with this generation. It stands in Redis beside them, and proves that they belong together
        and were written by who has the ring."""
        message = b"family" + self.digest + generation.to_bytes(8)
        return hmac.digest(secret, message, hashlib.sha256)[:MAC_BYTES]

    def packed(self) -> bytes:
        """For Redis: what is its own, and by what name the rest is known (`terms_of`). Its size depends on nothing,
        and is small, since there may be millions of families."""
        return self._own() + self._terms()[:TERMS_BYTES]

    def unpack(self, family_id: UUID, packed: bytes) -> "Family":
        """Another one with the terms of this one. Raises struct.error for what `packed` never wrote."""
        user, session, authenticated_at, expires_at = OWN.unpack(packed[:-TERMS_BYTES])
        return replace(
            self,
            id=family_id,
            user_id=UUID(bytes=user),
            session_id=UUID(bytes=session),
            authenticated_at=int.from_bytes(authenticated_at),
            expires_at=int.from_bytes(expires_at),
        )

    @classmethod
    def from_rows(cls, family: RefreshFamily, session: Session) -> "Family":
        return cls(
            id=family.id,
            session_id=session.id,
            user_id=family.user_id,
            client_id=family.client_id,
            scope=family.scope,
            audience=tuple(family.audience),
            authenticated_at=ms(family.authenticated_at or session.authenticated_at),
            amr=tuple(session.amr if family.amr is None else family.amr),
            expires_at=ms(family.expires_at),
            idle_lifetime=family.idle_lifetime * 1000,
            binding=family.binding,
            claims=None if family.claims is None else json.dumps(family.claims, separators=(",", ":")),
        )


class Outcome(StrEnum):
    """What became of a presented token. The first three leave a live successor."""

    ROTATED = "rotated"
    REPLAYED = "replayed"  # within the grace: the same successor again
    FAST_FORWARDED = "fast_forwarded"  # Redis had lost writes; the token proves the generation
    REUSED = "reused"  # the family is dead in Redis; the caller ends it in SQL
    ENDED = "ended"
    EXPIRED = "expired"
    STALE = "stale"  # nothing was spent; what the caller knows is out of date


class Checkpoint(NamedTuple):
    """A family as a store knows it. `rotated_at`, `drop_at` in ms since 1970."""

    family: Family
    generation: int
    rotated_at: int
    ended: bool

    @property
    def drop_at(self) -> int:
        """When it ends by itself if nobody uses it."""
        return min(self.family.expires_at, self.rotated_at + self.family.idle_lifetime)


def terms_of(packed: bytes) -> bytes:
    """The name of what is the same in all families in whose `packed` it stands."""
    return packed[-TERMS_BYTES:]


def ms(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp() * 1000)
