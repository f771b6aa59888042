"""The change feed: what must hold from the next request on, in every process.

Revocations and changes of people, clients and roles are rows of SQL, committed with the change itself, and then
mirrored into a Redis stream before the change is answered. A process holds the live entries in memory; per request
it asks Redis one thing: has the feed moved since I last looked?

Redis may have been emptied, replaced or rolled back. An *epoch*, a random word that stands in SQL and in Redis,
says that Redis was compared with SQL since its server process started. Where the two words differ, or the process
is another one, nothing is decided until the mirror was written again from SQL under a new epoch (`verify`).
"""

import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeVar, cast
from uuid import UUID

from sqlalchemy import BigInteger, LargeBinary, String, delete, insert, select, update
from sqlalchemy.orm import Mapped, mapped_column

from tokenserver.errors import StoreUnavailable
from tokenserver.storage.aside import elsewhere
from tokenserver.storage.redis import RedisReplaced, RedisStore, UnknownContent
from tokenserver.storage.sql import Base, Database, Transaction, new_id

T = TypeVar("T")

logger = logging.getLogger("tokenserver.storage")

# Entries outlive the longest token by this much: leeway of verifiers and skew between clocks.
MARGIN_MS: Final = 120_000
SKEW_MS: Final = 60_000
MAX_TRIES: Final = 8


class Kind(StrEnum):
    """What an entry says of its subject. The first five are cutoffs: tokens issued up to then are dead."""

    USER = "user"
    CLIENT = "client"
    SESSION = "session"
    FAMILY = "family"
    TOKEN = "token"  # subject: the jti
    EVERYTHING = "everything"
    KEYS_CHANGED = "keys_changed"
    USER_CHANGED = "user_changed"
    CLIENT_CHANGED = "client_changed"
    ROLES_CHANGED = "roles_changed"


class Entry(NamedTuple):
    """`at`: the moment in ms since 1970 up to which a cutoff holds."""

    kind: Kind
    subject: str
    at: int

    @classmethod
    def parse(cls, payload: str) -> "Entry":
        """Raises ValueError, TypeError for what is none."""
        kind, subject, at = json.loads(payload)
        return cls(Kind(kind), subject, at)


class FeedRow(Base):
    __tablename__ = "feed"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[str] = mapped_column(String(20))
    subject: Mapped[str] = mapped_column(String(255))
    at: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger, index=True)
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)


FEED: Final = Base.metadata.tables[FeedRow.__tablename__]
FIRST_STATE: Final = 1


class ServerState(Base):
    """One row for each bucket of Redis: its epoch, and the Redis process that holds it. The first has what the
    whole deployment needs too: the longest lifetime that any token was issued with (s), and the key that makes
    pairwise subjects, which outlives every other secret."""

    __tablename__ = "server_state"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[str] = mapped_column(String(32))
    redis_run_id: Mapped[str] = mapped_column(String(64))
    longest_token_lifetime: Mapped[int]
    pairwise_key: Mapped[bytes | None] = mapped_column(LargeBinary(32))


class Change:
    """Collects what one transaction changes for others; each thing once."""

    def __init__(self) -> None:
        self._noted: dict[tuple[Kind, str], None] = {}

    def note(self, kind: Kind, subject: UUID | str = "") -> None:
        self._noted[kind, str(subject)] = None

    def save(self, tx: Transaction, retention_ms: int) -> list[Entry]:
        """Cutoffs hold up to this moment, the last one before the commit."""
        now = now_ms()
        entries = [Entry(kind, subject, now) for kind, subject in self._noted]
        if entries:
            times = {"created_at": now, "expires_at": now + retention_ms}
            rows = [{"id": new_id(), **entry._asdict(), **times} for entry in entries]
            tx.connection().execute(insert(FEED), rows)
        return entries


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Mark(NamedTuple):
    """What a process has applied of a bucket's feed. An empty `epoch`: it must be compared with SQL first."""

    epoch: str
    position: str


Known = tuple[Mark, ...]  # one for each bucket
NOTHING: Final = Mark("", "")
POSITION: Final = re.compile(r"([0-9]{1,20}-[0-9]{1,20})?")


class Feed:
    """One per process. `subscribe` before the first `sync`.

    Every bucket of Redis carries the whole feed, and a change is answered when all have it: what one of them says
    is enough for a decision. A Redis script that spends something compares the bucket's state with what this
    process knows of it (`known`), so that nothing is spent on stale knowledge.
    """

    def __init__(self, database: Database, store: RedisStore, token_lifetime: int) -> None:
        self.database = database
        self.store = store
        self.token_lifetime = token_lifetime
        self._known: Known = tuple(NOTHING for _ in store.buckets)
        self._lock = threading.RLock()
        self._subscribers: list[tuple[Callable[[Entry], None], Callable[[list[Entry]], None]]] = []
        self._verifications = [0 for _ in store.buckets]

    @property
    def retention_ms(self) -> int:
        return self.token_lifetime * 1000 + MARGIN_MS

    def subscribe(self, apply: Callable[[Entry], None], reload: Callable[[list[Entry]], None]) -> None:
        """`apply` adds one entry. `reload` replaces all that is known by the live entries, in one step: a reader
        in another thread must never meet the moment between forgetting and knowing again."""
        self._subscribers.append((apply, reload))

    # Writing

    def change(self, work: Callable[[Transaction, Change], T]) -> T:
        """Commit `work` with the entries that it noted, then mirror them; only then return.

        Raises StoreUnavailable when the mirror can't be written: the change is committed then, holds in this
        process, and is mirrored by `reconcile`; the caller answers 503 and its client tries again.
        """

        def transaction(tx: Transaction) -> tuple[T, list[Entry]]:
            change = Change()
            result = work(tx, change)
            return result, change.save(tx, self.retention_ms)

        result, entries = self.database.write(transaction)
        self.publish(entries)
        return result

    def publish(self, entries: list[Entry]) -> None:
        """Mirror committed entries, in every bucket; where one is away, in the others all the same."""
        if not entries:
            return
        with self._lock:
            for entry in entries:
                self._apply(entry)
        self.in_every_bucket(lambda bucket: self._publish(bucket, entries))

    def _publish(self, bucket: int, entries: list[Entry]) -> int:
        if not entries:
            return 0
        ended = [self.family_key(e.subject) for e in entries if self._has_family(bucket, e)]
        payload = [json.dumps(e) for e in entries]
        for _ in range(MAX_TRIES):
            if not self.epoch(bucket):
                self.verify(bucket)
            keys = [state_key(bucket), feed_key(bucket), *ended]
            arguments = [self.epoch(bucket), self.retention_ms, len(ended), *payload]
            try:
                done = self.store.run_script(bucket, "publish", keys, arguments)
            except RedisReplaced:
                done = None
            except UnknownContent:
                self._write_anew(bucket)
                continue
            if done:
                return len(entries)
            self.verify(bucket)  # writes the mirror from SQL, these entries included
        raise StoreUnavailable("redis", "the epoch keeps changing")

    def in_every_bucket(self, work: Callable[[int], int]) -> int:
        """The sum of what it returns. Where one bucket is away, it is done in the others all the same.

        Raises StoreUnavailable then.
        """
        done, failure = 0, None
        for bucket in self.store.buckets:
            try:
                done += work(bucket)
            except StoreUnavailable as error:
                failure = error
        if failure is not None:
            raise failure
        return done

    # Reading

    def known(self) -> Known:
        """What this process knows the state of things by."""
        return self._known

    @property
    def is_informed(self) -> bool:
        """Whether this process has ever looked."""
        return bool(self._known[0].epoch) or any(mark.epoch for mark in self._known)

    def epoch(self, bucket: int) -> str:
        return self._known[bucket].epoch

    def sync(self, bucket: int | None = None) -> None:
        """Apply what has happened since the last call: one round trip when nothing has. `bucket`: the one whose
        word matters; any, when it is not given.

        Raises StoreUnavailable: the caller must refuse, never guess.
        """
        if bucket is not None:
            self._sync(bucket)
            return
        first = self.store.any_bucket()
        try:
            self._sync(first)
        except StoreUnavailable:
            second = self.store.any_bucket()
            if second == first:
                raise
            self._sync(second)  # one master of a cluster is away: the others know as much

    def _sync(self, bucket: int) -> int:
        for _ in range(MAX_TRIES):
            try:
                state = self.store.ask(
                    bucket, lambda c: cast("list[str | None]", c.send("HMGET", state_key(bucket), "epoch", "feed"))
                )
            except (RedisReplaced, UnknownContent):
                self.verify(bucket)
                continue
            if self._catch_up(bucket, _mark(state)):
                return 1
        raise StoreUnavailable("redis", "the epoch keeps changing")

    def _catch_up(self, bucket: int, there: Mark) -> bool:
        here = self._known[bucket]
        if here.epoch != there.epoch or not there.epoch:
            self.verify(bucket)
            return False
        if _order(here.position) >= _order(there.position):  # another thread may have been faster
            return True
        return elsewhere(lambda: self._read_on(bucket, here))

    def _read_on(self, bucket: int, here: Mark) -> bool:
        with self._lock:
            if self._known[bucket] != here:
                return False
            try:
                items = self.store.ask(
                    bucket,
                    lambda c: cast(
                        "list[tuple[str, dict[str, str]]]",
                        c.xrange(feed_key(bucket), min=f"({here.position}" if here.position else "-"),
                    ),
                )
            except RedisReplaced:
                return False
            except UnknownContent:
                self._write_anew(bucket)
                return False
            for item_id, fields in items:
                # Each entry names the one before it: one that was trimmed or evicted meanwhile is missed at once.
                if fields.get("p") != here.position:
                    self.verify(bucket)
                    return False
                try:
                    entry = Entry.parse(fields["e"])
                except (KeyError, ValueError, TypeError):
                    self._write_anew(bucket)
                    return False
                self._apply(entry)
                here = Mark(here.epoch, item_id)
                self._know(bucket, here)
            if not items:
                self.verify(bucket)  # the entries that the state speaks of are gone
        return bool(items)

    def _write_anew(self, bucket: int) -> None:
        """What lies there was written by somebody else: without a state, SQL's entries take its place."""
        logger.error("the feed in Redis isn't as this server writes it; it is written anew from SQL")
        self.store.ask_unverified(bucket, lambda c: c.delete(state_key(bucket)))
        self.verify(bucket)

    def _know(self, bucket: int, mark: Mark) -> None:
        """A reader in another thread meets the old or the new."""
        with self._lock:
            self._known = (*self._known[:bucket], mark, *self._known[bucket + 1 :])

    def verify(self, bucket: int) -> None:
        """Compare a bucket with SQL, write its mirror again where they differ, and load the live entries.

        Holds a row of `server_state` meanwhile, so that of many processes one does it and the others adopt it.
        """
        before = self._verifications[bucket]
        elsewhere(lambda: self._verify(bucket, before))

    def _verify(self, bucket: int, before: int) -> None:
        with self._lock:
            if self._verifications[bucket] != before:
                return  # another thread did it while this one waited

            def compare(tx: Transaction) -> tuple[str, Mark, list[Entry]]:
                # What Redis has before the first statement, a database shows in those that follow, as entries are
                # published after their commit. The other way round, one that came in between would be missed.
                _, before = self._look(bucket)
                deployment, state = _locked_states(tx, bucket)
                self.token_lifetime = max(self.token_lifetime, deployment.longest_token_lifetime)
                run_id, mark = self._look(bucket)
                if mark.epoch != state.epoch or run_id != state.redis_run_id:
                    # From here on nobody publishes into what is thrown away: who tries waits for this comparison.
                    self.store.ask_unverified(bucket, lambda c: c.delete(state_key(bucket)))
                    entries = _live_entries(tx)
                    mark = self._write_mirror(bucket, secrets.token_hex(8), entries)
                    state.epoch, state.redis_run_id = mark.epoch, run_id
                else:
                    entries = _live_entries(tx)
                    # Another process wrote the mirror while this one waited for its turn: once more.
                    mark = before if before.epoch == mark.epoch else NOTHING
                deployment.longest_token_lifetime = self.token_lifetime
                return run_id, mark, entries

            for _ in range(MAX_TRIES):
                run_id, mark, entries = self.database.write(compare)
                if mark.epoch:
                    break
            for _, reload in self._subscribers:
                reload(entries)
            self.store.trust(bucket, run_id)
            self._know(bucket, mark)
            self._verifications[bucket] += 1

    def _look(self, bucket: int) -> tuple[str, Mark]:
        try:
            run_id, state = self.store.ask_unverified(
                bucket, lambda c: cast("list[str | None]", c.hmget(state_key(bucket), ["epoch", "feed"]))
            )
        except UnknownContent:
            run_id, _ = self.store.ask_unverified(bucket, lambda c: c.delete(state_key(bucket)))
            return run_id, NOTHING
        return run_id, _mark(state)

    def _write_mirror(self, bucket: int, epoch: str, entries: list[Entry]) -> Mark:
        def write(client: Any) -> str:
            pipeline = client.pipeline(transaction=True)
            pipeline.delete(state_key(bucket), feed_key(bucket))
            for entry in entries:
                if self._has_family(bucket, entry):
                    pipeline.delete(self.family_key(entry.subject))  # SQL says that it ended
            for entry in entries:
                pipeline.xadd(feed_key(bucket), {"e": json.dumps(entry)})
            results = pipeline.execute()
            return str(results[-1]) if entries else ""

        _, position = self.store.ask_unverified(bucket, write)
        _, (seconds, microseconds) = self.store.ask_unverified(bucket, lambda c: c.time())
        began = seconds * 1000 + microseconds // 1000
        # Last, since from here on the mirror is believed.
        fields: dict[Any, Any] = {"epoch": epoch, "feed": position, "began": began}
        self.store.ask_unverified(bucket, lambda c: c.hset(state_key(bucket), mapping=fields))
        return Mark(epoch, position)

    def _apply(self, entry: Entry) -> None:
        for apply, _ in self._subscribers:
            apply(entry)

    # Where a family lies

    def bucket_of(self, family_id: UUID) -> int:
        return self.store.bucket_of(family_id.hex)

    def family_key(self, family_id: UUID | str) -> str:
        hexadecimal = family_id.hex if isinstance(family_id, UUID) else family_id.replace("-", "")
        return f"ts:{{{self.store.bucket_of(hexadecimal)}}}:f:{hexadecimal}"

    def _has_family(self, bucket: int, entry: Entry) -> bool:
        return entry.kind is Kind.FAMILY and self.bucket_of(UUID(entry.subject)) == bucket

    # Healing

    def follow(self) -> None:
        """To be called about once a second: stay close to every bucket, and see by SQL whether each is still the
        one that the others use. Where the network is split, a master that was replaced may answer this process for
        ever as if nothing had happened; who found its successor wrote that into SQL.

        Raises StoreUnavailable.
        """
        try:
            self.in_every_bucket(self._sync)
        finally:
            query = select(ServerState.id, ServerState.epoch)
            epochs = dict(self.database.read(lambda tx: tx.execute(query).tuples().all()))
            for bucket, mark in enumerate(self._known):
                if mark.epoch and epochs.get(FIRST_STATE + bucket) != mark.epoch:
                    self.store.relocate(bucket)
                    self._know(bucket, NOTHING)

    def reconcile(self, since: int = 0) -> int:
        """Mirror entries that were committed but never mirrored, because their writer died or lost Redis.

        Looks at entries committed after `since` (ms). Returns how many were missing, summed over the buckets.
        Raises StoreUnavailable.
        """

        def committed_since(tx: Transaction) -> list[Entry]:
            rows = tx.execute(select(FeedRow).where(FeedRow.created_at > since)).scalars()
            return [Entry(Kind(row.kind), row.subject, row.at) for row in rows]

        self.in_every_bucket(self._sync)
        committed = self.database.read(committed_since)
        if not committed:
            return 0

        def mend(bucket: int) -> int:
            mirrored = self._mirrored(bucket, since)
            return self._publish(bucket, [entry for entry in committed if entry not in mirrored])

        return self.in_every_bucket(mend)

    def _mirrored(self, bucket: int, since: int) -> set[Entry]:
        # The clocks of SQL's writers and of Redis may differ.
        first = f"{max(0, since - SKEW_MS)}-0"
        try:
            items = self.store.ask(
                bucket, lambda c: cast("list[tuple[str, dict[str, str]]]", c.xrange(feed_key(bucket), min=first))
            )
        except RedisReplaced as error:
            raise StoreUnavailable("redis", "replaced just now") from error
        found = set()
        for _, fields in items:
            with suppress(KeyError, ValueError, TypeError):
                found.add(Entry.parse(fields["e"]))
        return found

    def purge(self, limit: int = 1000) -> int:
        """Delete expired rows, at most `limit`; how many. Only after a `reconcile`: a row that was never mirrored
        must not be forgotten, since Redis may still hold the family that it ended."""

        def expired(tx: Transaction) -> int:
            ids = tx.scalars(select(FeedRow.id).where(FeedRow.expires_at < now_ms()).limit(limit)).all()
            tx.execute(delete(FeedRow).where(FeedRow.id.in_(ids)))
            return len(ids)

        return self.database.write(expired)


def state_key(bucket: int) -> str:
    """All keys of a bucket share its hash tag, hence a slot: one script may touch them together."""
    return f"ts:{{{bucket}}}:state"


def feed_key(bucket: int) -> str:
    return f"ts:{{{bucket}}}:feed"


def _live_entries(tx: Transaction) -> list[Entry]:
    rows = tx.execute(select(FeedRow).where(FeedRow.expires_at > now_ms()).order_by(FeedRow.created_at))
    return [Entry(Kind(row.kind), row.subject, row.at) for row in rows.scalars()]


def _mark(state: list[str | None]) -> Mark:
    """As it stands in Redis; NOTHING where that is none."""
    epoch, position = state[0] or "", state[1] or ""
    return Mark(epoch, position) if POSITION.fullmatch(position) else NOTHING


def _order(position: str) -> tuple[int, int]:
    """Ids of a stream are a time and a counter."""
    milliseconds, _, counter = position.partition("-")
    return int(milliseconds or 0), int(counter or 0)


def _locked_states(tx: Transaction, bucket: int) -> tuple[ServerState, ServerState]:
    """The row of the deployment, which is the first bucket's too, and that of a bucket."""
    wanted = {FIRST_STATE, FIRST_STATE + bucket}
    query = select(ServerState).where(ServerState.id.in_(wanted)).order_by(ServerState.id).with_for_update()
    found = {row.id: row for row in tx.scalars(query)}
    if FIRST_STATE not in found:
        raise StoreUnavailable("sql", "not initialised; run `tokenserver init`")
    if FIRST_STATE + bucket not in found:
        row = ServerState(id=FIRST_STATE + bucket, epoch="", redis_run_id="", longest_token_lifetime=0)
        tx.add(row)
        found[row.id] = row
    return found[FIRST_STATE], found[FIRST_STATE + bucket]


def lock(tx: Transaction) -> None:
    """Until the end of the transaction no other one passes here."""
    tx.execute(select(ServerState.id).where(ServerState.id == FIRST_STATE).with_for_update())


def distrust(tx: Transaction) -> None:
    """As if Redis had been replaced: the next `verify` writes the mirror again from SQL under a new epoch, and no
    family in Redis counts as known. For a SQL that is older than what Redis holds."""
    tx.execute(update(ServerState).values(epoch="", redis_run_id=""))


def initialize(tx: Transaction) -> None:
    """The one row of `server_state`, where it or something in it is missing."""
    state = tx.get(ServerState, FIRST_STATE, with_for_update=True)
    if state is None:
        state = ServerState(id=FIRST_STATE, epoch="", redis_run_id="", longest_token_lifetime=0)
        tx.add(state)
    if state.pairwise_key is None:
        state.pairwise_key = secrets.token_bytes(32)
