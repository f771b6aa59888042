"""Refresh tokens: the family, its rotation, its recovery; the one owner of refresh state (RFC 9700 section 4.14).

A token is `rt_` + base64url(family id, 16 bytes ‖ generation, 4 bytes ‖ HMAC-SHA-256, 32 bytes). It is stored
nowhere. Redis holds one hash per family with the live generation; one script spends it. SQL holds the same family
with a checkpoint of the generation. `docs/refresh-tokens.md` tells the whole story.
"""

import hashlib
import hmac
import logging
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple, cast
from uuid import UUID

from sqlalchemy import select

from tokenserver.audit.trail import FULL, LOG_FULL, events_key
from tokenserver.errors import Overloaded, StoreUnavailable
from tokenserver.storage.cache import Cache
from tokenserver.storage.feed import Feed, Known, Mark, now_ms, state_key
from tokenserver.storage.redis import RedisReplaced, UnknownContent
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.models import RefreshFamily, Session
from tokenserver.tokens.refresh_family import Checkpoint, Family, ms

PREFIX: Final = "rt_"
LENGTH: Final = 16 + 4 + 32
CACHED_FAMILIES: Final = 10_000
MAX_TRIES: Final = 8
MAC: Final = re.compile(r"[A-Za-z0-9_-]+")

logger = logging.getLogger("tokenserver.tokens")


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
        self._restore(Checkpoint(family, 1, ms(rotated_at), ended=False), "")
        return self.issue(family.id, 1)

    def find(self, family_id: UUID) -> Family | None:
        """From this process, else from Redis, else from SQL. It may have ended; `spend` tells."""
        family = self._families.get(family_id)
        if family is None:
            ticket = self._families.ticket()
            known = self._read_redis(family_id)
            if known is None and (known := self._read_sql(family_id)) is not None:
                self._merge(known)
            if known is not None:
                family = known.family
                self._families.put(family_id, family, ticket)
        return family

    def is_live(self, family_id: UUID, generation: int) -> bool:
        """For introspection: would `spend` rotate this generation? Asks Redis, and SQL when Redis doesn't know."""
        for _ in range(2):
            known = self._read_redis(family_id)
            if known is not None:
                return not known.ended and _drop_at(known) > now_ms() and generation >= known.generation
            checkpoint = self._read_sql(family_id)
            if checkpoint is None or self._merge(checkpoint) not in {None, Outcome.STALE}:
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
        outcome, live = self._rotate(family, generation, known[bucket], event, "unasked")
        if outcome == "unverified":
            # Redis lost this family or some of its rotations, or the token is an old one: SQL's checkpoint decides.
            try:
                checkpoint = self._read_sql(family.id)
            except StoreUnavailable:
                outcome, live = self._rotate(family, generation, known[bucket], event, "away")
            else:
                refusal = self._merge(checkpoint) if checkpoint else Outcome.ENDED
                if checkpoint is None or refusal is not None:
                    return self._stale(bucket) if refusal is Outcome.STALE else Spent(refusal or Outcome.ENDED)
                self._families.put(family.id, checkpoint.family, self._families.ticket())
                outcome, live = self._rotate(checkpoint.family, generation, known[bucket], event, "merged")
        if outcome == "unverified":
            raise StoreUnavailable("redis", "a family vanishes as soon as it is restored")
        if outcome == Outcome.STALE:
            return self._stale(bucket)
        result = Outcome(outcome)
        if result in {Outcome.ROTATED, Outcome.REPLAYED, Outcome.FAST_FORWARDED}:
            return Spent(result, self.issue(family.id, live))
        return Spent(result)

    def _rotate(self, family: Family, generation: int, known: Mark, event: str, asked: str) -> tuple[str, int]:
        """What `rotate.lua` answers."""
        bucket, secrets = self._feed.bucket_of(family.id), self._secrets()
        keys = [self._feed.family_key(family.id), state_key(bucket), rotations_key(bucket), events_key(bucket)]
        arguments = [*known, generation, self._grace_ms, family.id.hex, asked, event, FULL]
        arguments += [family.expires_at, family.idle_lifetime]
        arguments += [" ".join(family.mac(secret, generation) for secret in secrets)]
        arguments += [family.mac(secrets[0], generation + 1)]
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

    def _merge(self, checkpoint: Checkpoint) -> Outcome | None:
        """Put SQL's checkpoint beside what Redis knows, and keep the later generation; or say why not."""
        family_id = checkpoint.family.id
        for _ in range(MAX_TRIES):
            fields = self._read_fields(family_id)
            if fields is None:
                return Outcome.STALE
            known = self._written_here(family_id, fields)
            if known is not None and known.generation > checkpoint.generation:
                checkpoint = checkpoint._replace(generation=known.generation, rotated_at=known.rotated_at)
            refusal = self._restore(checkpoint, _mac_of(fields))
            if refusal is not Outcome.ROTATED:
                return refusal
        raise StoreUnavailable("redis", "a family is written again and again")

    def _restore(self, checkpoint: Checkpoint, there: str) -> Outcome | None:
        """Write a checkpoint into Redis; or say why not. `there`: the MAC that was read in its place. ROTATED: by
        now it is another one."""
        family = checkpoint.family
        if checkpoint.ended:
            return Outcome.ENDED
        if (drop_at := _drop_at(checkpoint)) <= now_ms():
            return Outcome.EXPIRED
        bucket = self._feed.bucket_of(family.id)
        keys = [self._feed.family_key(family.id), state_key(bucket)]
        epoch = self._feed.epoch(bucket)
        args: list[str | int] = [epoch, there, drop_at, "e", epoch, "g", checkpoint.generation]
        args += ["r", checkpoint.rotated_at, "h", family.mac(self._secrets()[0], checkpoint.generation)]
        try:
            done = self._store.run_script(bucket, "restore", keys, [*args, *family.to_hash()])
        except RedisReplaced:
            done = 0
        return {0: Outcome.STALE, 1: None, 2: Outcome.ROTATED}[done]

    # What the stores know

    def _read_fields(self, family_id: UUID) -> dict[str, str] | None:
        """What lies in Redis. None: it was replaced just now, and nothing in it is believed."""
        bucket, key = self._feed.bucket_of(family_id), self._feed.family_key(family_id)
        try:
            return self._store.ask(bucket, lambda c: cast("dict[str, str]", c.hgetall(key)))
        except RedisReplaced:
            self._feed.sync(bucket)
            return None
        except UnknownContent:
            return {}

    def _written_here(self, family_id: UUID, fields: dict[str, str]) -> Checkpoint | None:
        """None for what this server didn't write: it counts as if it weren't there."""
        mac = _mac_of(fields)
        try:
            family = Family.from_hash(family_id, fields)
            known = Checkpoint(family, int(fields["g"]), int(fields["r"]), "d" in fields)
            good = [hmac.compare_digest(family.mac(secret, known.generation), mac) for secret in self._secrets()]
        except (KeyError, ValueError, OverflowError):
            good = []
        if any(good):
            return known
        if mac:
            logger.warning(
                "refresh family %s in Redis isn't as this server wrote it; SQL's copy is used", family_id
            )
        return None

    def _read_redis(self, family_id: UUID) -> Checkpoint | None:
        """If it was compared with SQL in this epoch."""
        fields = self._read_fields(family_id)
        if not fields or fields.get("e") != self._feed.epoch(self._feed.bucket_of(family_id)):
            return None
        return self._written_here(family_id, fields)

    def _read_sql(self, family_id: UUID) -> Checkpoint | None:
        def read(tx: Transaction) -> Checkpoint | None:
            row = tx.execute(
                select(RefreshFamily, Session)
                .join(Session, Session.id == RefreshFamily.session_id)
                .where(RefreshFamily.id == family_id)
            ).one_or_none()
            if row is None:
                return None
            family, session = row
            ended = family.ended_at is not None or session.ended_at is not None
            return Checkpoint(Family.from_rows(family, session), family.generation, ms(family.rotated_at), ended)

        return self._feed.database.read(read)


def _mac_of(fields: dict[str, str]) -> str:
    """As `restore.lua` sees it."""
    mac = fields.get("h", "")
    return mac if MAC.fullmatch(mac) else ""


def _drop_at(checkpoint: Checkpoint) -> int:
    return min(checkpoint.family.expires_at, checkpoint.rotated_at + checkpoint.family.idle_lifetime)


def rotations_key(bucket: int) -> str:
    return f"ts:{{{bucket}}}:rotations"
