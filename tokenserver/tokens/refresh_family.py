"""What a refresh family is, how it lies in Redis, and the MAC that says that this server wrote it there."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from tokenserver.tokens.models import RefreshFamily, Session

# RFC 2104 section 5: half of the hash, and no less than 80 bits.
MAC_BYTES: Final = 16


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
        text = json.dumps([self.id.hex, *self.to_hash()])
        object.__setattr__(self, "digest", hashlib.sha256(text.encode()).digest())

    def mac(self, secret: bytes, generation: int) -> str:
        """Of the family with this generation. It stands in Redis beside them, and proves that they belong together
        and were written by who has the ring."""
        mac = hmac.digest(secret, b"family" + self.digest + generation.to_bytes(8), hashlib.sha256)
        return urlsafe_b64encode(mac[:MAC_BYTES]).rstrip(b"=").decode()

    def to_hash(self) -> list[str]:
        """Fields for Redis; few and short ones, since there may be millions of families. Beyond 64 characters
        (`hash-max-listpack-value`) one would double what a family takes."""
        packed = self.user_id.bytes + self.session_id.bytes + self.authenticated_at.to_bytes(6)
        packed += self.expires_at.to_bytes(6) + (self.idle_lifetime // 1000).to_bytes(4)
        fields = ["u", urlsafe_b64encode(packed).decode(), "c", self.client_id]
        fields += ["a", f"{' '.join(self.amr)}\n{' '.join(self.audience)}"]
        for name, value in (("o", self.scope), ("b", self.binding), ("q", self.claims)):
            fields += [] if value is None else [name, value]
        return fields

    @classmethod
    def from_hash(cls, family_id: UUID, fields: dict[str, str]) -> "Family":
        """Raises KeyError, ValueError for what `to_hash` never wrote."""
        packed = urlsafe_b64decode(fields["u"])
        amr, _, audience = fields["a"].partition("\n")
        return cls(
            id=family_id,
            user_id=UUID(bytes=packed[:16]),
            session_id=UUID(bytes=packed[16:32]),
            authenticated_at=int.from_bytes(packed[32:38]),
            expires_at=int.from_bytes(packed[38:44]),
            idle_lifetime=int.from_bytes(packed[44:48]) * 1000,
            client_id=fields["c"],
            amr=tuple(amr.split()),
            audience=tuple(audience.split()),
            scope=fields.get("o"),
            binding=fields.get("b"),
            claims=fields.get("q"),
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


def ms(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp() * 1000)
