"""A refresh family as Redis and SQL know it: read, and brought together where they differ."""

import hmac
import logging
import re
from collections.abc import Callable
from typing import Final, cast
from uuid import UUID

from sqlalchemy import select

from tokenserver.errors import StoreUnavailable
from tokenserver.storage.feed import Feed, now_ms, state_key
from tokenserver.storage.redis import RedisReplaced, UnknownContent
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.models import RefreshFamily, Session
from tokenserver.tokens.refresh_family import Checkpoint, Family, Outcome, ms

logger = logging.getLogger("tokenserver.tokens")

MAX_TRIES: Final = 8
MAC: Final = re.compile(r"[A-Za-z0-9_-]+")
# What `restore.lua` answers.
ANOTHER_EPOCH, WRITTEN, CHANGED = range(3)


class FamilyStores:
    """`secrets`: the ring's, newest first. Every method may raise StoreUnavailable."""

    def __init__(self, feed: Feed, secrets: Callable[[], tuple[bytes, ...]]) -> None:
        self._feed = feed
        self._secrets = secrets

    def read_redis(self, family_id: UUID) -> Checkpoint | None:
        """If it was compared with SQL in this epoch."""
        fields = self._fields(family_id)
        if not fields or fields.get("e") != self._feed.epoch(self._feed.bucket_of(family_id)):
            return None
        return self._written_here(family_id, fields)

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

        return self._feed.database.read(read)

    def merge(self, checkpoint: Checkpoint) -> Outcome | None:
        """Put SQL's checkpoint beside what Redis knows, and keep the later generation; or say why not."""
        if checkpoint.ended:
            return Outcome.ENDED
        family_id = checkpoint.family.id
        for _ in range(MAX_TRIES):
            fields = self._fields(family_id)
            if fields is None:
                return Outcome.STALE
            known = self._written_here(family_id, fields)
            if known is not None and known.generation > checkpoint.generation:
                checkpoint = checkpoint._replace(generation=known.generation, rotated_at=known.rotated_at)
            if checkpoint.drop_at <= now_ms():
                return Outcome.EXPIRED
            done = self.write(checkpoint, _mac_of(fields))
            if done != CHANGED:
                return None if done == WRITTEN else Outcome.STALE
        raise StoreUnavailable("redis", "a family is written again and again")

    def write(self, checkpoint: Checkpoint, there: str = "") -> int:
        """Into Redis. CHANGED: in its place lies another MAC than `there`, which the caller has read."""
        family = checkpoint.family
        bucket = self._feed.bucket_of(family.id)
        keys = [self._feed.family_key(family.id), state_key(bucket)]
        epoch = self._feed.epoch(bucket)
        args: list[str | int] = [epoch, there, checkpoint.drop_at, "e", epoch, "g", checkpoint.generation]
        args += ["r", checkpoint.rotated_at, "h", family.mac(self._secrets()[0], checkpoint.generation)]
        try:
            return cast("int", self._feed.store.run_script(bucket, "restore", keys, [*args, *family.to_hash()]))
        except RedisReplaced:
            return ANOTHER_EPOCH

    def _fields(self, family_id: UUID) -> dict[str, str] | None:
        """What lies in Redis. None: it was replaced just now, and nothing in it is believed."""
        bucket, key = self._feed.bucket_of(family_id), self._feed.family_key(family_id)
        try:
            return self._feed.store.ask(bucket, lambda c: cast("dict[str, str]", c.hgetall(key)))
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


def _mac_of(fields: dict[str, str]) -> str:
    """As `restore.lua` sees it."""
    mac = fields.get("h", "")
    return mac if MAC.fullmatch(mac) else ""
