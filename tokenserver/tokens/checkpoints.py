"""The drainer: carries rotations from the Redis stream into SQL, well under a second behind.

What it writes only ever grows, so it may write twice, late, or beside another drainer; a lease keeps that rare.
"""

import logging
import secrets
from datetime import UTC, datetime
from typing import Final, cast
from uuid import UUID

from sqlalchemy import bindparam, update

from tokenserver.storage.feed import Feed
from tokenserver.storage.redis import RedisReplaced, UnknownContent
from tokenserver.tokens.models import RefreshFamily
from tokenserver.tokens.refresh_token import rotations_key
from tokenserver.tokens.sessions import Sessions

LEASE_BUCKET: Final = 0
LEASE_KEY: Final = "ts:{0}:drainer"
LEASE_MS: Final = 600
BATCH: Final = 1000
FIRST: Final = (0, datetime.fromtimestamp(0, UTC))

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

    def _drain(self, bucket: int) -> int:
        key = rotations_key(bucket)
        try:
            items = self._store.ask(
                bucket, lambda c: cast("list[tuple[str, dict[str, str]]]", c.xrange(key, count=BATCH))
            )
            if items:
                self._write([fields for _, fields in items])
                self._store.ask(bucket, lambda c: c.xdel(key, *(item_id for item_id, _ in items)))
        except RedisReplaced:
            self._feed.sync(bucket)
            return 0
        except UnknownContent:
            logger.error("the rotations in Redis aren't as this server writes them")  # noqa: TRY400
            self._store.ask(bucket, lambda c: c.delete(key))
            return 0
        return len(items)

    def _write(self, events: list[dict[str, str]]) -> None:
        newest: dict[UUID, tuple[int, datetime]] = {}
        ended: list[UUID] = []
        for event in events:
            try:
                family = UUID(event["f"])
                if "g" in event:
                    newest[family] = max(newest.get(family, FIRST), _generation(event))
                if "d" in event:
                    ended.append(family)
            except (KeyError, ValueError, OverflowError, OSError):
                logger.exception("a rotation in Redis can't be read and is dropped")
        rows = [{"family": family, "to": to, "at": at} for family, (to, at) in newest.items()]
        if rows:
            table = RefreshFamily.__table__
            statement = (
                update(RefreshFamily)
                .where(table.c.id == bindparam("family"), table.c.generation < bindparam("to"))
                .values(generation=bindparam("to"), rotated_at=bindparam("at"))
                .execution_options(synchronize_session=None)
            )
            self._feed.database.write(lambda tx: tx.connection().execute(statement, rows))
        # The request that met the reuse ends the family itself; here is who finishes when it was killed midway.
        for family in ended:
            self._sessions.end_reused(family)


def _generation(event: dict[str, str]) -> tuple[int, datetime]:
    """And since when. Raises ValueError for what is none."""
    generation = int(event["g"])
    if generation >= 1 << 31:
        raise ValueError("beyond what a column holds")
    return generation, datetime.fromtimestamp(int(event["r"]) / 1000, UTC)
