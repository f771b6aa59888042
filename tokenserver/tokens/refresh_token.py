"""Refresh tokens: the family, its rotation, its recovery; the one owner of refresh state (RFC 9700 section 4.14).

A token is `rt_` + base64url(family id, 16 bytes ‖ generation, 4 bytes ‖ HMAC-SHA-256, 32 bytes). It is stored
nowhere. Redis holds one hash per family with the live generation; one script spends it. SQL holds the same family
with a checkpoint of the generation. `docs/refresh-tokens.md` tells the whole story.
"""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple, cast
from uuid import UUID

from sqlalchemy import select

from tokenserver.audit.trail import FULL, LOG_FULL, events_key
from tokenserver.errors import Overloaded, StoreUnavailable
from tokenserver.storage.cache import Cache
from tokenserver.storage.feed import Feed, Known, now_ms, state_key
from tokenserver.storage.redis import RedisReplaced
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.models import RefreshFamily, Session

PREFIX: Final = "rt_"
LENGTH: Final = 16 + 4 + 32
CACHED_FAMILIES: Final = 10_000


class Outcome(StrEnum):
    """What became of a presented token. The first three leave a live successor."""

    ROTATED = "rotated"
    REPLAYED = "replayed"  # within the grace: the same successor again
    FAST_FORWARDED = "fast_forwarded"  # Redis had lost writes; the token proves the generation
    REUSED = "reused"  # the family is dead in Redis; the caller ends it in SQL
    ENDED = "ended"
    EXPIRED = "expired"
    STALE = "stale"  # nothing was spent; what the caller knows is out of date


class Spent(NamedTuple):
    """`token`: the live successor, or None."""

    outcome: Outcome
    token: str | None = None


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

    def to_hash(self) -> list[str | int]:
        """Fields for Redis; short ones, since there may be millions of families."""
        fields: list[str | int] = ["u", self.user_id.hex, "s", self.session_id.hex, "c", self.client_id]
        fields += ["a", " ".join(self.audience), "t", self.authenticated_at, "m", " ".join(self.amr)]
        fields += ["x", self.expires_at, "i", self.idle_lifetime]
        if self.scope is not None:
            fields += ["o", self.scope]
        if self.binding is not None:
            fields += ["b", self.binding]
        if self.claims is not None:
            fields += ["q", self.claims]
        return fields

    @classmethod
    def from_hash(cls, family_id: UUID, fields: dict[str, str]) -> "Family":
        return cls(
            id=family_id,
            session_id=UUID(fields["s"]),
            user_id=UUID(fields["u"]),
            client_id=fields["c"],
            scope=fields.get("o"),
            audience=tuple(fields["a"].split()),
            authenticated_at=int(fields["t"]),
            amr=tuple(fields["m"].split()),
            expires_at=int(fields["x"]),
            idle_lifetime=int(fields["i"]),
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
            authenticated_at=_ms(family.authenticated_at or session.authenticated_at),
            amr=tuple(session.amr if family.amr is None else family.amr),
            expires_at=_ms(family.expires_at),
            idle_lifetime=family.idle_lifetime * 1000,
            binding=family.binding,
            claims=None if family.claims is None else json.dumps(family.claims, separators=(",", ":")),
        )


class _Checkpoint(NamedTuple):
    family: Family
    generation: int
    rotated_at: int
    ended: bool


class RefreshTokens:
    """`secrets`: the ring's MAC secrets for refresh tokens, newest first. `grace` in seconds."""

    def __init__(self, feed: Feed, secrets: Callable[[], tuple[bytes, ...]], grace: int) -> None:
        self._feed = feed
        self._store = feed.store
        self._secrets = secrets
        self._grace_ms = grace * 1000
        self._families: Cache[UUID, Family] = Cache(CACHED_FAMILIES)

    # The token

    def issue(self, family_id: UUID, generation: int) -> str:
        payload = family_id.bytes + generation.to_bytes(4)
        mac = hmac.digest(self._secrets()[0], payload, hashlib.sha256)
        return PREFIX + urlsafe_b64encode(payload + mac).rstrip(b"=").decode()

    def parse(self, token: str) -> tuple[UUID, int] | None:
        """Family id and generation of a token that this server made; no store is asked."""
        try:
            raw = urlsafe_b64decode(token.removeprefix(PREFIX).encode("ascii") + b"==")
        except ValueError:
            return None
        # One spelling only: the decoder ignores stray characters and bits, a comparison of the text doesn't.
        if len(raw) != LENGTH or token != PREFIX + urlsafe_b64encode(raw).rstrip(b"=").decode():
            return None
        payload, mac = raw[:20], raw[20:]
        # Every secret is tried, so that the time taken doesn't tell which one matched.
        good = [hmac.compare_digest(hmac.digest(s, payload, hashlib.sha256), mac) for s in self._secrets()]
        return (UUID(bytes=payload[:16]), int.from_bytes(payload[16:])) if any(good) else None

    # The family

    def publish(self, family: Family, rotated_at: datetime) -> str:
        """Put a family that was just committed into Redis; its first token.

        When Redis was replaced at this very moment, the first refresh finds the family in SQL.
        """
        self._families.put(family.id, family, self._families.ticket())
        self._restore(_Checkpoint(family, 1, _ms(rotated_at), ended=False))
        return self.issue(family.id, 1)

    def find(self, family_id: UUID) -> Family | None:
        """From this process, else from Redis, else from SQL. It may have ended; `spend` tells."""
        family = self._families.get(family_id)
        if family is None:
            ticket = self._families.ticket()
            family = self._read_redis(family_id)
            if family is None:
                checkpoint = self._read_sql(family_id)
                family = checkpoint.family if checkpoint else None
            if family is not None:
                self._families.put(family_id, family, ticket)
        return family

    def is_live(self, family_id: UUID, generation: int) -> bool:
        """For introspection: would `spend` rotate this generation? Asks Redis, and SQL when Redis doesn't know."""
        for _ in range(2):
            fields = self._read_hash(family_id)
            if fields is not None:
                now = now_ms()
                expired = now >= int(fields["x"]) or now >= int(fields["r"]) + int(fields["i"])
                return "d" not in fields and not expired and generation >= int(fields["g"])
            checkpoint = self._read_sql(family_id)
            if checkpoint is None or self._restore(checkpoint) not in {None, Outcome.STALE}:
                return False
        raise StoreUnavailable("redis", "the epoch keeps changing")

    # Rotation

    def spend(self, family: Family, generation: int, known: Known, event: str) -> Spent:
        """Consume a generation. The caller has minted already: nothing may fail after this. `event`: of the token
        that goes out with the successor, put into the event stream by the same script.

        `known`: `Feed.known` from before the caller's checks. STALE: the feed has moved since, and was followed;
        check again, and call again. REUSED: end the family in SQL.
        Raises StoreUnavailable; the token is then spent or not, and a retry within the grace gets its successor.
        """
        bucket = self._feed.bucket_of(family.id)
        keys = [self._feed.family_key(family.id), state_key(bucket), rotations_key(bucket), events_key(bucket)]
        merged = False
        while True:
            arguments = [*known[bucket], generation, self._grace_ms, family.id.hex, int(merged), event, FULL]
            try:
                reply = self._store.run_in_time(bucket, "rotate", keys, arguments)
            except RedisReplaced:
                return self._stale(bucket)
            outcome, live = cast("tuple[str, int]", reply)
            if outcome == Outcome.STALE:
                return self._stale(bucket)
            if outcome == "full":
                raise Overloaded(LOG_FULL, private="the event stream is full: is SQL away?")
            if outcome not in {"unverified", "ahead"}:
                break
            # Redis lost this family or some of its rotations: SQL's checkpoint joins in, once.
            if merged:
                raise StoreUnavailable("redis", "a family vanishes as soon as it is restored")
            merged = True
            checkpoint = self._read_sql(family.id)
            if checkpoint is None:
                return Spent(Outcome.ENDED)
            refusal = self._restore(checkpoint)
            if refusal is not None:
                return self._stale(bucket) if refusal is Outcome.STALE else Spent(refusal)
        result = Outcome(outcome)
        if result in {Outcome.ROTATED, Outcome.REPLAYED, Outcome.FAST_FORWARDED}:
            return Spent(result, self.issue(family.id, live))
        return Spent(result)

    def _stale(self, bucket: int) -> Spent:
        self._feed.sync(bucket)
        return Spent(Outcome.STALE)

    def _restore(self, checkpoint: _Checkpoint) -> Outcome | None:
        """Merge a checkpoint into Redis; or say why not."""
        family = checkpoint.family
        drop_at = min(family.expires_at, checkpoint.rotated_at + family.idle_lifetime)
        if checkpoint.ended:
            return Outcome.ENDED
        if drop_at <= now_ms():
            return Outcome.EXPIRED
        bucket = self._feed.bucket_of(family.id)
        keys = [self._feed.family_key(family.id), state_key(bucket)]
        epoch = self._feed.epoch(bucket)
        args = [epoch, checkpoint.generation, checkpoint.rotated_at, drop_at, *family.to_hash()]
        try:
            done = self._store.run_script(bucket, "restore", keys, args)
        except RedisReplaced:
            done = 0
        return None if done else Outcome.STALE

    def _read_hash(self, family_id: UUID) -> dict[str, str] | None:
        """What Redis holds of a family, if it was compared with SQL in this epoch."""
        bucket, key = self._feed.bucket_of(family_id), self._feed.family_key(family_id)
        try:
            fields = self._store.ask(bucket, lambda c: cast("dict[str, str]", c.hgetall(key)))
        except RedisReplaced:
            self._feed.sync(bucket)
            return None
        return fields if fields.get("e") == self._feed.epoch(bucket) and "u" in fields else None

    def _read_redis(self, family_id: UUID) -> Family | None:
        fields = self._read_hash(family_id)
        return Family.from_hash(family_id, fields) if fields else None

    def _read_sql(self, family_id: UUID) -> _Checkpoint | None:
        def read(tx: Transaction) -> _Checkpoint | None:
            row = tx.execute(
                select(RefreshFamily, Session)
                .join(Session, Session.id == RefreshFamily.session_id)
                .where(RefreshFamily.id == family_id)
            ).one_or_none()
            if row is None:
                return None
            family, session = row
            ended = family.ended_at is not None or session.ended_at is not None
            return _Checkpoint(Family.from_rows(family, session), family.generation, _ms(family.rotated_at), ended)

        return self._feed.database.read(read)


def rotations_key(bucket: int) -> str:
    return f"ts:{{{bucket}}}:rotations"


def _ms(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp() * 1000)
