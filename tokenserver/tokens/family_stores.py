"""A refresh family as Redis and SQL know it: read, and brought together where they differ."""

import hmac
import logging
import struct
from collections.abc import Callable
from typing import Final, cast
from uuid import UUID

from sqlalchemy import select

from tokenserver.errors import StoreUnavailable
from tokenserver.storage.cache import Cache
from tokenserver.storage.feed import Feed, now_ms, state_key
from tokenserver.storage.redis import RedisReplaced, UnknownContent
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.family_hash import FIELDS, FamilyHash, short
from tokenserver.tokens.models import RefreshFamily, Session
from tokenserver.tokens.refresh_family import Checkpoint, Family, Outcome, ms, terms_of

logger = logging.getLogger("tokenserver.tokens")

MAX_TRIES: Final = 8
KNOWN_TERMS: Final = 10_000
# What `restore.lua` answers.
ANOTHER_EPOCH, WRITTEN, CHANGED = range(3)


class FamilyStores:
    """`secrets`: the ring's, newest first. Every method may raise StoreUnavailable."""

    def __init__(self, feed: Feed, secrets: Callable[[], tuple[bytes, ...]]) -> None:
        self._feed = feed
        self._secrets = secrets
        # One family of each terms that this process has met: Redis holds no more of them than their name.
        self._terms: Cache[bytes, Family] = Cache(KNOWN_TERMS)

    def read_redis(self, family_id: UUID) -> Checkpoint | None:
        """If it was compared with SQL in this epoch. Asks SQL too where nobody of its terms was met before."""
        found = self._look(family_id)
        if found is None or found.epoch != short(self._feed.epoch(self._feed.bucket_of(family_id))):
            return None
        return self._written_here(family_id, found)

    def read_sql(self, family_id: UUID) -> Checkpoint | None:
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

        checkpoint = self._feed.database.read(read)
        if checkpoint is not None:
            self._learn(checkpoint.family)
        return checkpoint

    def merge(self, checkpoint: Checkpoint) -> Outcome | None:
        """Put SQL's checkpoint beside what Redis knows, and keep the later generation; or say why not."""
        if checkpoint.ended:
            return Outcome.ENDED
        family_id = checkpoint.family.id
        for _ in range(MAX_TRIES):
            found = self._look(family_id)
            if found is None:
                return Outcome.STALE
            known = self._written_here(family_id, found)
            if known is not None and known.generation > checkpoint.generation:
                checkpoint = checkpoint._replace(generation=known.generation, rotated_at=known.rotated_at)
            if checkpoint.drop_at <= now_ms():
                return Outcome.EXPIRED
            done = self.write(checkpoint, found.mac)
            if done != CHANGED:
                return None if done == WRITTEN else Outcome.STALE
        raise StoreUnavailable("redis", "a family is written again and again")

    def write(self, checkpoint: Checkpoint, there: bytes = b"") -> int:
        """Into Redis. CHANGED: in its place lies another MAC than `there`, which the caller has read."""
        family, generation = checkpoint.family, checkpoint.generation
        self._learn(family)
        bucket = self._feed.bucket_of(family.id)
        keys = [self._feed.family_key(family.id), state_key(bucket)]
        epoch, packed, mac = self._feed.epoch(bucket), family.packed(), family.mac(self._secrets()[0], generation)
        state = FamilyHash(packed, generation, checkpoint.rotated_at, short(epoch), mac).state()
        args = [epoch, there, checkpoint.drop_at, state, packed]
        try:
            return cast("int", self._feed.store.run_script(bucket, "restore", keys, args))
        except RedisReplaced:
            return ANOTHER_EPOCH

    def _look(self, family_id: UUID) -> FamilyHash | None:
        """What lies in Redis. None: it was replaced just now, and nothing in it is believed."""
        bucket, key = self._feed.bucket_of(family_id), self._feed.family_key(family_id)
        try:
            return FamilyHash.read(self._feed.store.ask(bucket, lambda c: c.send_for_bytes("HMGET", key, *FIELDS)))
        except RedisReplaced:
            self._feed.sync(bucket)
            return None
        except UnknownContent:
            return FamilyHash()

    def _written_here(self, family_id: UUID, found: FamilyHash) -> Checkpoint | None:
        """None for what this server didn't write: it counts as if it weren't there."""
        if not found.mac:
            return None
        family = self._family(family_id, found.packed)
        if family is not None:
            generation, mac = found.generation, found.mac
            good = [hmac.compare_digest(family.mac(secret, generation), mac) for secret in self._secrets()]
            if any(good):
                return Checkpoint(family, found.generation, found.rotated_at, found.ended)
        logger.warning("refresh family %s in Redis isn't as this server wrote it; SQL's copy is used", family_id)
        return None

    def _family(self, family_id: UUID, packed: bytes) -> Family | None:
        """What it would be by these bytes."""
        like = self._terms.get(terms_of(packed))
        if like is None and self.read_sql(family_id) is not None:
            like = self._terms.get(terms_of(packed))
        try:
            return None if like is None else like.unpack(family_id, packed)
        except struct.error:
            return None

    def _learn(self, family: Family) -> None:
        terms = terms_of(family.packed())
        if self._terms.get(terms) is None:
            self._terms.put(terms, family, self._terms.ticket())
