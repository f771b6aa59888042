"""The change feed: what must hold from the next request on, in every process.

Revocations and changes of people, clients and roles are rows of SQL, committed with the change itself, and then
mirrored into a Redis stream before the change is answered. A process holds the live entries in memory; per request
it asks Redis one thing: has the feed moved since I last looked?

Redis may have been emptied, replaced or rolled back. An *epoch*, a random word that stands in SQL and in Redis,
says that Redis was compared with SQL since its server process started. Where the two words differ, or the process
is another one, nothing is decided until the mirror was written again from SQL under a new epoch (`verify`).
"""

import json
import secrets
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeVar, cast
from uuid import UUID

from sqlalchemy import BigInteger, LargeBinary, String, delete, insert, select
from sqlalchemy.orm import Mapped, mapped_column

from tokenserver.errors import StoreUnavailable
from tokenserver.storage.redis import RedisReplaced, RedisStore
from tokenserver.storage.sql import Base, Database, Transaction, new_id

T = TypeVar("T")

STATE_KEY: Final = "ts:{0}:state"
FEED_KEY: Final = "ts:{0}:feed"
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


class ServerState(Base):
    """One row: the epoch, the longest lifetime that any token of this deployment was issued with (s), and the key
    that makes pairwise subjects, which outlives every other secret."""

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
            tx.execute(insert(FeedRow), [{"id": new_id(), **e._asdict(), **times} for e in entries])
        return entries


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Feed:
    """One per process. `subscribe` before the first `sync`.

    `position` and `epoch` are what this process has applied; a Redis script that spends something compares them
    with the state that Redis holds, so that nothing is spent on stale knowledge.
    """

    def __init__(self, database: Database, store: RedisStore, token_lifetime: int) -> None:
        self.database = database
        self.store = store
        self.token_lifetime = token_lifetime
        self.epoch = ""
        self.position = ""
        self._lock = threading.RLock()
        self._subscribers: list[tuple[Callable[[Entry], None], Callable[[list[Entry]], None]]] = []
        self._synced_at = 0.0
        self._verifications = 0

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
        """Mirror committed entries."""
        if not entries:
            return
        with self._lock:
            for entry in entries:
                self._apply(entry)
        families = [family_key(e.subject) for e in entries if e.kind is Kind.FAMILY]
        payload = [json.dumps(e) for e in entries]
        for _ in range(MAX_TRIES):
            if not self.epoch:
                self.verify()
            try:
                done = self.store.run_script(
                    "publish",
                    [STATE_KEY, FEED_KEY, *families],
                    [self.epoch, self.retention_ms, len(families), *payload],
                )
            except RedisReplaced:
                done = None
            if done:
                return
            self.verify()  # writes the mirror from SQL, these entries included
        raise StoreUnavailable("redis", "the epoch keeps changing")

    # Reading

    def known(self) -> tuple[str, str]:
        """Epoch and position: what this process knows the state of things by."""
        return self.epoch, self.position

    def confirm(self, known: tuple[str, str]) -> None:
        """A script has just found the feed where `known` says."""
        if known == self.known():
            self._synced_at = time.monotonic()

    def sync(self) -> None:
        """Apply what has happened since the last call: one round trip when nothing has.

        Raises StoreUnavailable: the caller must refuse, never guess.
        """
        for _ in range(MAX_TRIES):
            try:
                epoch, position = self.store.ask(
                    lambda c: cast("list[str | None]", c.hmget(STATE_KEY, ["epoch", "feed"]))
                )
            except RedisReplaced:
                self.verify()
                continue
            if self._catch_up(epoch or "", position or ""):
                return
        raise StoreUnavailable("redis", "the epoch keeps changing")

    def _catch_up(self, epoch: str, position: str) -> bool:
        # A process that slept longer than the stream remembers has missed entries for good.
        overslept = time.monotonic() - self._synced_at > self.retention_ms / 2000
        if epoch == self.epoch and position == self.position and not overslept:
            self._synced_at = time.monotonic()
            return True
        if not self.epoch or epoch != self.epoch or overslept:
            self.verify()
            return False
        with self._lock:
            start = self.position
            try:
                items = self.store.ask(
                    lambda c: cast(
                        "list[tuple[str, dict[str, str]]]", c.xrange(FEED_KEY, min=f"({start}" if start else "-")
                    )
                )
            except RedisReplaced:
                return False
            for item_id, fields in items:
                self._apply(Entry.parse(fields["e"]))
                self.position = item_id
            self._synced_at = time.monotonic()
        return bool(items)

    def verify(self) -> None:
        """Compare Redis with SQL, write the mirror again where they differ, and load the live entries.

        Holds the row of `server_state` meanwhile, so that of many processes one does it and the others adopt it.
        """
        before = self._verifications
        with self._lock:
            if self._verifications != before:
                return  # another thread did it while this one waited

            def compare(tx: Transaction) -> tuple[str, str, str, list[Entry]]:
                state = tx.scalar(select(ServerState).where(ServerState.id == 1).with_for_update())
                if state is None:
                    raise StoreUnavailable("sql", "not initialised; run `tokenserver init`")
                self.token_lifetime = max(self.token_lifetime, state.longest_token_lifetime)
                rows = tx.execute(select(FeedRow).where(FeedRow.expires_at > now_ms()).order_by(FeedRow.created_at))
                entries = [Entry(Kind(row.kind), row.subject, row.at) for row in rows.scalars()]
                run_id, epoch, position = self._look()
                if epoch != state.epoch or run_id != state.redis_run_id:
                    epoch = secrets.token_hex(8)
                    position = self._write_mirror(epoch, entries)
                    state.epoch, state.redis_run_id = epoch, run_id
                state.longest_token_lifetime = self.token_lifetime
                return run_id, epoch, position, entries

            run_id, epoch, position, entries = self.database.write(compare)
            for _, reload in self._subscribers:
                reload(entries)
            self.store.trusted_run_id = run_id
            self.epoch, self.position = epoch, position
            self._synced_at = time.monotonic()
            self._verifications += 1

    def _look(self) -> tuple[str, str, str]:
        def look(client: Any) -> list[Any]:
            pipeline = client.pipeline(transaction=True)  # one connection: the answers are of one server
            pipeline.info("server")
            pipeline.hmget(STATE_KEY, ["epoch", "feed"])
            return cast("list[Any]", pipeline.execute())

        info, (epoch, position) = self.store.ask_unverified(look)
        return info["run_id"], epoch or "", position or ""

    def _write_mirror(self, epoch: str, entries: list[Entry]) -> str:
        def write(client: Any) -> str:
            pipeline = client.pipeline(transaction=True)
            pipeline.delete(STATE_KEY, FEED_KEY)
            for entry in entries:
                if entry.kind is Kind.FAMILY:
                    pipeline.delete(family_key(entry.subject))  # SQL says that it ended
            for entry in entries:
                pipeline.xadd(FEED_KEY, {"e": json.dumps(entry)})
            results = pipeline.execute()
            position = results[-1] if entries else ""
            # Last, since from here on the mirror is believed.
            client.hset(STATE_KEY, mapping={"epoch": epoch, "feed": position})
            return str(position)

        return self.store.ask_unverified(write)

    def _apply(self, entry: Entry) -> None:
        for apply, _ in self._subscribers:
            apply(entry)

    # Healing

    def reconcile(self, since: int = 0) -> int:
        """Mirror entries that were committed but never mirrored, because their writer died or lost Redis.

        Looks at entries committed after `since` (ms). Returns how many were missing. Raises StoreUnavailable.
        """

        def committed_since(tx: Transaction) -> list[Entry]:
            rows = tx.execute(select(FeedRow).where(FeedRow.created_at > since)).scalars()
            return [Entry(Kind(row.kind), row.subject, row.at) for row in rows]

        self.sync()
        committed = self.database.read(committed_since)
        if not committed:
            return 0
        # The clocks of SQL's writers and of Redis may differ.
        first = f"{max(0, since - SKEW_MS)}-0"
        try:
            items = self.store.ask(
                lambda c: cast("list[tuple[str, dict[str, str]]]", c.xrange(FEED_KEY, min=first))
            )
        except RedisReplaced as error:
            raise StoreUnavailable("redis", "replaced just now") from error
        mirrored = {Entry.parse(fields["e"]) for _, fields in items}
        missing = [entry for entry in committed if entry not in mirrored]
        self.publish(missing)
        return len(missing)

    def purge(self, limit: int = 1000) -> int:
        """Delete expired rows, at most `limit`; how many. Only after a `reconcile`: a row that was never mirrored
        must not be forgotten, since Redis may still hold the family that it ended."""

        def expired(tx: Transaction) -> int:
            ids = tx.scalars(select(FeedRow.id).where(FeedRow.expires_at < now_ms()).limit(limit)).all()
            tx.execute(delete(FeedRow).where(FeedRow.id.in_(ids)))
            return len(ids)

        return self.database.write(expired)


def family_key(family_id: UUID | str) -> str:
    """All keys share one hash tag, hence one slot: one script may touch them together."""
    hexadecimal = family_id.hex if isinstance(family_id, UUID) else family_id.replace("-", "")
    return f"ts:{{0}}:f:{hexadecimal}"


def initialize(tx: Transaction) -> None:
    """The one row of `server_state`, where it or something in it is missing."""
    state = tx.get(ServerState, 1, with_for_update=True)
    if state is None:
        state = ServerState(id=1, epoch="", redis_run_id="", longest_token_lifetime=0)
        tx.add(state)
    if state.pairwise_key is None:
        state.pairwise_key = secrets.token_bytes(32)
