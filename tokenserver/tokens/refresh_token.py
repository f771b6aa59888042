"""Refresh tokens: the family, its rotation, its recovery; the one owner of refresh state (RFC 9700 section 4.14).

A token is `rt_` + base64url(family id, 16 bytes ‖ generation, 4 bytes ‖ HMAC-SHA-256, 32 bytes). It is stored
nowhere. Redis holds one hash per family with the live generation; one script spends it. SQL holds the same family
with a checkpoint of the generation. `docs/refresh-tokens.md` tells the whole story.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple, cast
from uuid import UUID

from tokenserver.audit.trail import FULL, LOG_FULL, events_key
from tokenserver.errors import Overloaded, StoreUnavailable
from tokenserver.signals import metrics
from tokenserver.storage.cache import Cache
from tokenserver.storage.feed import Feed, Known, Mark, now_ms, state_key
from tokenserver.storage.redis import RedisReplaced
from tokenserver.tokens.family_hash import short
from tokenserver.tokens.family_stores import FamilyStores
from tokenserver.tokens.refresh_family import Checkpoint, Family, Outcome, ms

PREFIX: Final = "rt_"
LENGTH: Final = 16 + 4 + 32
CACHED_FAMILIES: Final = 10_000


class Spent(NamedTuple):
    """`token`: the live successor, or None."""

    outcome: Outcome
    token: str | None = None


class RefreshTokens:
    """`secrets`: the ring's MAC secrets for refresh tokens, newest first. `grace` in seconds."""

    def __init__(self, feed: Feed, secrets: Callable[[], tuple[bytes, ...]], grace: int) -> None:
        self._feed = feed
        self._store = feed.store
        self._secrets = secrets
        self._stores = FamilyStores(feed, secrets)
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
        self._stores.write(Checkpoint(family, 1, ms(rotated_at), ended=False))
        return self.issue(family.id, 1)

    def find(self, family_id: UUID) -> Family | None:
        """From this process, else from Redis, else from SQL. It may have ended; `spend` tells."""
        family = self._families.get(family_id)
        if family is None:
            ticket = self._families.ticket()
            known = self._stores.read_redis(family_id)
            if known is None and (known := self._stores.read_sql(family_id)) is not None:
                self._stores.merge(known)
            if known is not None:
                family = known.family
                self._families.put(family_id, family, ticket)
        return family

    def is_live(self, family_id: UUID, generation: int) -> bool:
        """For introspection: would `spend` rotate this generation? Asks Redis, and SQL when Redis doesn't know."""
        for _ in range(2):
            known = self._stores.read_redis(family_id)
            if known is not None:
                return not known.ended and known.drop_at > now_ms() and generation >= known.generation
            checkpoint = self._stores.read_sql(family_id)
            if checkpoint is None or self._stores.merge(checkpoint) not in {None, Outcome.STALE}:
                return False
        raise StoreUnavailable("redis", "the epoch keeps changing")

    # Rotation

    def spend(self, family: Family, generation: int, known: Known, event: bytes) -> Spent:
        """Consume a generation. The caller has minted already: nothing may fail after this. `event`: of the token
        that goes out with the successor, put into the event stream by the same script.

        `known`: `Feed.known` from before the caller's checks. STALE: the feed has moved since, and was followed;
        check again, and call again. REUSED: end the family in SQL.
        Raises StoreUnavailable; the token is then spent or not, and a retry within the grace gets its successor.
        """
        spent = self._spend(family, generation, known, event)
        if spent.outcome is not Outcome.STALE:
            metrics.refreshes.count(spent.outcome)
        if spent.outcome is Outcome.REUSED:
            metrics.replays_detected.count("refresh_token")
        return spent

    def _spend(self, family: Family, generation: int, known: Known, event: bytes) -> Spent:
        bucket = self._feed.bucket_of(family.id)
        outcome, live = self._rotate(family, generation, known[bucket], event, "unasked")
        if outcome == "unverified":
            # Redis lost this family or some of its rotations, or the token is an old one: SQL's checkpoint decides.
            try:
                checkpoint = self._stores.read_sql(family.id)
            except StoreUnavailable:
                outcome, live = self._rotate(family, generation, known[bucket], event, "away")
                if outcome == "unverified":
                    raise
            else:
                refusal = self._stores.merge(checkpoint) if checkpoint else Outcome.ENDED
                if checkpoint is None or refusal is not None:
                    return self._stale(bucket) if refusal is Outcome.STALE else Spent(refusal or Outcome.ENDED)
                self._families.put(family.id, checkpoint.family, self._families.ticket())
                outcome, live = self._rotate(checkpoint.family, generation, known[bucket], event, "merged")
                if outcome != Outcome.REUSED:
                    metrics.families_rebuilt.count()
        # `unverified` again: a process of another version put it there in its form at this very moment (ADR 0030).
        if outcome in {"unverified", Outcome.STALE}:
            return self._stale(bucket)
        result = Outcome(outcome)
        if result in {Outcome.ROTATED, Outcome.REPLAYED, Outcome.FAST_FORWARDED}:
            return Spent(result, self.issue(family.id, live))
        return Spent(result)

    def _rotate(self, family: Family, generation: int, known: Mark, event: bytes, asked: str) -> tuple[str, int]:
        """What `rotate.lua` answers."""
        bucket, secrets = self._feed.bucket_of(family.id), self._secrets()
        keys = [self._feed.family_key(family.id), state_key(bucket), rotations_key(bucket), events_key(bucket)]
        arguments = [*known, generation, self._grace_ms, family.id.hex, asked, event, FULL]
        arguments += [family.expires_at, family.idle_lifetime]
        arguments += [b"".join(family.mac(secret, generation) for secret in secrets)]
        arguments += [family.mac(secrets[0], generation + 1), short(known.epoch)]
        try:
            outcome, live = cast("tuple[str, int]", self._store.run_in_time(bucket, "rotate", keys, arguments))
        except RedisReplaced:
            return Outcome.STALE, 0
        if outcome == "full":
            raise Overloaded(LOG_FULL, private="the event stream is full: is SQL away?")
        return outcome, live

    def _stale(self, bucket: int) -> Spent:
        self._feed.sync(bucket)
        return Spent(Outcome.STALE)


def rotations_key(bucket: int) -> str:
    return f"ts:{{{bucket}}}:rotations"
