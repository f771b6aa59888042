"""The drainer: carries rotations from the Redis stream into SQL, well under a second behind.

What it writes only ever grows, so it may write twice, late, or beside another drainer; a lease keeps that rare.
"""

import logging
import re
import secrets
from typing import Final
from uuid import UUID

from sqlalchemy import Table

from tokenserver.storage import stream
from tokenserver.storage.bulk import raise_rows, time_text
from tokenserver.storage.feed import Feed
from tokenserver.storage.redis import RedisReplaced
from tokenserver.storage.sql import Base
from tokenserver.tokens.models import RefreshFamily
from tokenserver.tokens.refresh_token import rotations_key
from tokenserver.tokens.sessions import Sessions

LEASE_BUCKET: Final = 0
LEASE_KEY: Final = "ts:{0}:drainer"
LEASE_MS: Final = 600
BATCH: Final = 1000
TABLE: Final[Table] = Base.metadata.tables[RefreshFamily.__tablename__]
COLUMNS: Final = ("id", "generation", "rotated_at")
FIRST: Final = (0, "")
IS_FAMILY: Final = re.compile("[0-9a-f]{32}").fullmatch

logger = logging.getLogger("tokenserver.tokens")


class Checkpoints:
    """One per process; `drain` is called some times a second and does nothing while another process drains."""

    def __init__(self, feed: Feed, sessions: Sessions) -> None:
        self._feed = feed
        self._store = feed.store
        self._sessions = sessions
        self._name = secrets.token_hex(8)
        self.leading = False  # as of the last question

    def leads(self) -> bool:
        """Whether this process drains, and does the other chores that one process is enough for."""
        if not self._feed.epoch(LEASE_BUCKET):
            self._feed.sync(LEASE_BUCKET)
        self.leading = False
        try:
            reply = self._store.run_script(LEASE_BUCKET, "lease", [LEASE_KEY], [self._name, LEASE_MS])
            self.leading = bool(reply)
        except RedisReplaced:
            self._feed.sync(LEASE_BUCKET)
        return self.leading

    def drain(self) -> int:
        """How many rotations were carried. Raises StoreUnavailable."""
        return self._feed.in_every_bucket(self._drain) if self.leads() else 0

    def drain_all(self) -> None:
        """Without a pause while whole batches wait."""
        while self.drain() >= BATCH:
            pass

    def _drain(self, bucket: int) -> int:
        return stream.carry(self._feed, bucket, rotations_key(bucket), BATCH, self._write)

    def _write(self, items: list[stream.Item]) -> None:
        newest: dict[str, tuple[int, str]] = {}
        ended: list[UUID] = []
        for _, event in items:
            try:
                family = event["f"]
                if not IS_FAMILY(family):
                    raise ValueError("no id of a family")
                if "g" in event:
                    newest[family] = max(newest.get(family, FIRST), _generation(event))
                if "d" in event:
                    ended.append(UUID(family))
            except (KeyError, ValueError, OverflowError, OSError):
                logger.exception("a rotation in Redis can't be read and is dropped")
        if newest:
            rows = [(family, *newest[family]) for family in sorted(newest)]
            self._feed.database.write(lambda tx: raise_rows(tx.connection(), TABLE, COLUMNS, rows))
        # The request that met the reuse ends the family itself; here is who finishes when it was killed midway.
        for family_id in ended:
            self._sessions.end_reused(family_id)


def _generation(event: dict[str, str]) -> tuple[int, str]:
    """And since when, as text. Raises ValueError for what is none."""
    generation = int(event["g"])
    if generation >= 1 << 31:
        raise ValueError("beyond what a column holds")
    return generation, time_text(int(event["r"]) * 1000)
