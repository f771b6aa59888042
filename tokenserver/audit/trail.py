"""Events that change nothing: who was let in, who was turned away, which tokens were issued.

They go into a Redis stream in a round trip that the request makes anyway, and `drain` carries them from there into
the log and the usage counts: in one transaction with the position in the stream, so that none is carried twice and
a killed server loses none. A request is answered after its events are in the stream.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Table, insert, select, update
from sqlalchemy.exc import IntegrityError, StatementError

from tokenserver.audit import usage
from tokenserver.audit.chain import TABLE, Chains, details_text
from tokenserver.audit.events import Event
from tokenserver.audit.models import StreamPosition
from tokenserver.compact_json import to_json
from tokenserver.errors import Overloaded, StoreUnavailable, Unavailable
from tokenserver.storage import stream
from tokenserver.storage.bulk import MICROSECONDS, insert_rows, time_text
from tokenserver.storage.feed import Feed, Known, Mark, state_key
from tokenserver.storage.redis import RedisReplaced
from tokenserver.storage.sql import Base, Transaction, new_id_text, ordered_id_text
from tokenserver.web.request_context import current

logger = logging.getLogger("tokenserver.audit")

BATCH: Final = 1000
# So many may wait while SQL is away, about 300 MB; then requests are refused rather than not recorded.
FULL: Final = 500_000
# Nobody wants objects of what is carried.
POSITIONS: Final[Table] = Base.metadata.tables[StreamPosition.__tablename__]


class Trail:
    """`keep_allowed`: whether what was allowed is kept in the log, or only counted."""

    def __init__(self, feed: Feed, *, keep_allowed: bool) -> None:
        self._feed = feed
        self._keep_allowed = keep_allowed

    # Writing

    def describe(
        self,
        event: Event,
        *,
        outcome: str = "success",
        reason: str | None = None,
        target: UUID | str | None = None,
        details: Mapping[str, Any] = MappingProxyType({}),
    ) -> bytes:
        """An event of the current request, as it stands in the stream. `details`: never a secret, token or code."""
        context = current()
        return to_json(
            [
                time.time_ns() // 1000,
                context.endpoint,
                event,
                outcome,
                reason,
                context.actor,
                context.client_id,
                context.address,
                context.request_id,
                context.method,
                context.path,
                target,
                dict(details),
            ]
        )

    def witness(self, known: Known, *events: bytes) -> bool:
        """Append the events if the feed still stands where the caller knows it (`Feed.known`): what was decided
        by that knowledge holds. False: nothing was appended, and the feed was followed meanwhile; decide again.

        Raises StoreUnavailable, Overloaded.
        """
        bucket = self._feed.store.any_bucket()
        if self._append(bucket, known[bucket], *events):
            return True
        self._feed.sync(bucket)
        return False

    def _append(self, bucket: int, known: Mark, *events: bytes) -> bool:
        keys = [state_key(bucket), events_key(bucket)]
        try:
            reply = self._feed.store.run_script(bucket, "witness", keys, [*known, FULL, *events])
        except RedisReplaced:
            return False
        if reply == "full":
            raise Overloaded(LOG_FULL, private="the event stream is full: is SQL away?")
        return bool(reply == "ok")

    def append(self, *events: bytes) -> None:
        """Whatever the feed says. Raises StoreUnavailable, Overloaded."""
        bucket = self._feed.store.any_bucket()
        for _ in range(2):
            if self._append(bucket, WHATEVER, *events):
                return
            self._feed.sync(bucket)
        raise StoreUnavailable("redis", "replaced just now")

    def save(self, *events: bytes) -> None:
        """Like `append`, of denials: where Redis is away they go into SQL, and a denial is not taken back because
        nothing could be written."""
        if not events:
            return
        try:
            self.append(*events)
        except Unavailable:
            try:
                self._feed.database.write(lambda tx: self._carry(tx, events))
            except Unavailable:
                logger.exception("%d denials could not be recorded", len(events))

    # Carrying

    def drain(self, limit: int = BATCH) -> int:
        """How many events were taken off the streams, at most `limit` of each. Any process may do it, several at
        once too."""
        return self._feed.in_every_bucket(lambda bucket: self._drain(bucket, limit))

    def _drain(self, bucket: int, limit: int) -> int:
        return stream.carry(self._feed, bucket, events_key(bucket), limit, partial(self._carry_all, bucket))

    def _carry_all(self, bucket: int, items: Sequence[stream.Item]) -> None:
        database = self._feed.database
        try:
            database.write(partial(self._carry_from, bucket=bucket, items=items))
        except UNFIT:
            # One of them fits into no row, so somebody else wrote it: the others must not wait for it for ever.
            for item in items:
                try:
                    database.write(partial(self._carry_from, bucket=bucket, items=[item]))
                except UNFIT:
                    logger.exception("an event of the stream can't be stored and is dropped")
                    database.write(partial(self._carry_from, bucket=bucket, items=[(item[0], {})]))

    def drain_all(self) -> None:
        """Before the log or the counts are read: everything that was answered until now."""
        while self.drain() >= BATCH:
            pass

    def _carry_from(self, tx: Transaction, bucket: int, items: Sequence[stream.Item]) -> None:
        name = f"{STREAM}:{bucket}" if bucket else STREAM
        position = _locked_position(tx, name)
        fresh = stream.after(position, items)
        self._carry(tx, [fields.get("e", "") for _, fields in fresh])
        last = max(items[-1][0], position, key=stream.order)
        tx.connection().execute(update(POSITIONS).where(POSITIONS.c.stream == name).values(position=last))

    def _carry(self, tx: Transaction, events: Iterable[str | bytes]) -> None:
        chains: Chains = tx.info[Chains]
        writer = chains.writer(tx)
        chain = writer.chain.hex
        rows = []
        counted = usage.Counts()
        now_ms = time.time_ns() // 1_000_000
        # CockroachDB would keep rows in the order of time on one machine.
        is_spread = tx.connection().dialect.name == "cockroachdb"
        for text in events:
            try:
                at, endpoint, *texts, details = orjson.loads(text)
                event, outcome, reason, _actor, client_id, _address, _request_id, _method, _path, _target = texts
                moment = time_text(at)
                counted.add(at // MICROSECONDS, endpoint, event, outcome, reason, client_id, details)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError):
                # Of another version, or somebody else's: the rest must not wait for it for ever.
                logger.exception("an event of the stream can't be read and is dropped")
                continue
            if self._keep_allowed or event != Event.ACCESS_ALLOWED:
                row_id = new_id_text() if is_spread else ordered_id_text(now_ms)
                covered = details_text(details)
                position, digest = writer.link((row_id, int(at), *texts), covered)  # at may be true
                rows.append((row_id.replace("-", ""), moment, *texts, covered, chain, position, digest))
        if rows:
            insert_rows(tx.connection(), TABLE, rows)
        counted.save(tx)


# What the log or a database says of an event that no server of this kind wrote.
UNFIT: Final = (StatementError, ValueError, TypeError, RecursionError)
LOG_FULL: Final = "The server can't record this right now. Try again."
STREAM: Final = "events"
WHATEVER: Final = Mark("*", "")


def events_key(bucket: int) -> str:
    return f"ts:{{{bucket}}}:events"


def _locked_position(tx: Transaction, name: str) -> str:
    query = select(POSITIONS.c.position).where(POSITIONS.c.stream == name).with_for_update()
    position: str | None = tx.connection().execute(query).scalar()
    if position is not None:
        return position
    try:
        with tx.begin_nested():
            tx.connection().execute(insert(POSITIONS).values(stream=name, position="0-0"))
    except IntegrityError:
        pass  # another process was faster
    return str(tx.connection().execute(query).scalar_one())
