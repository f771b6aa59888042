"""SQL: the typed base of all models, and the one way to run a transaction."""

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import JSON, Connection, DateTime, Dialect, Engine, MetaData, TypeDecorator, Uuid, event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Session as Transaction

from tokenserver.config import Settings
from tokenserver.errors import StoreUnavailable
from tokenserver.random_bytes import random_bytes
from tokenserver.signals import metrics
from tokenserver.storage.aside import elsewhere
from tokenserver.storage.write_queue import WriteQueue

if TYPE_CHECKING:
    from tokenserver.storage.connections import Gate

__all__ = [
    "Base",
    "Database",
    "Transaction",
    "before_commit",
    "db",
    "new_id",
    "new_id_text",
    "ordered_id_text",
    "unhurried",
    "utc_now",
    "when_ended",
]

T = TypeVar("T")

# 40001 serialization_failure: CockroachDB and PostgreSQL ask the client to retry; 40P01 deadlock_detected.
RETRIED_SQLSTATES: Final = frozenset({"40001", "40P01"})
# 40003 statement_completion_unknown: what was asked may have been done, so it isn't asked again.
UNKNOWN_SQLSTATE: Final = "40003"
MAX_TRIES: Final = 6
UNHURRIED_SECONDS: Final = 1800
SQLITE_SECONDS: Final = 5  # that a writer waits for its turn
# Pages stay in the kernel's cache. 2 MB of them for each connection, SQLite's default, were 12 MB of a node under
# load.
PRAGMAS: Final = (
    f"busy_timeout={SQLITE_SECONDS * 1000}",
    "synchronous=FULL",
    "foreign_keys=ON",
    "cache_size=-256",  # KiB
)
VARIANT: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
_COMMITTING: Final = "before_commit"
_ENDED: Final = "when_ended"


class Time(TypeDecorator[datetime]):
    """An instant, always aware and in UTC; SQLite would hand back naive ones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Time(), UUID: Uuid(), dict[str, Any]: JSON(), list[str]: JSON()}  # noqa: RUF012


db = SQLAlchemy(metadata=Base.metadata)


def new_id() -> UUID:
    """Random keys spread the writes of a distributed database; a sequence makes one hot range of it."""
    return UUID(bytes=random_bytes(), version=4)


def new_id_text() -> str:
    """Its text, for a third of the price (RFC 9562 section 5.4: version 4, variant 10)."""
    digits = random_bytes().hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


def ordered_id_digits(milliseconds: int) -> str:
    """Those of an id in the order of time (RFC 9562 section 5.7: version 7, variant 10). An index of them grows at
    its end, where one of random ids changes a page for each (docs/adr/0034)."""
    digits = random_bytes().hex()
    return f"{milliseconds:012x}7{digits[:3]}{VARIANT[digits[3]]}{digits[4:19]}"


def ordered_id_text(milliseconds: int) -> str:
    digits = ordered_id_digits(milliseconds)
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def before_commit(tx: Transaction, callback: Callable[[], None]) -> None:
    """Call it when the work is done: what it writes is part of the transaction."""
    tx.info.setdefault(_COMMITTING, []).append(callback)


def when_ended(tx: Transaction, callback: Callable[[bool | None], None]) -> None:
    """Call it when the transaction is over: True committed, False rolled back, None a commit of unknown outcome."""
    tx.info.setdefault(_ENDED, []).append(callback)


def utc_now() -> datetime:
    return datetime.now(UTC)


_unhurried: ContextVar[bool] = ContextVar("unhurried", default=False)


@contextmanager
def unhurried() -> Iterator[None]:
    """Statements may take half an hour: for what walks through whole tables while nobody waits for an answer."""
    token = _unhurried.set(True)
    try:
        yield
    finally:
        _unhurried.reset(token)


class Database:
    """Runs work in transactions on one engine. `info`: what each of them finds in its own `info`. `gate`: to its
    server, None for a file."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.info: dict[Any, Any] = {}
        self.gate: Gate | None = None
        self._queue: WriteQueue | None = None
        if engine.dialect.name == "sqlite":
            _prepare_sqlite(engine)
            if engine.url.database:
                self._queue = WriteQueue(Path(engine.url.database))

    @classmethod
    def of(cls, app: Flask, settings: Settings) -> "Database":
        """The application's database, its engine made and pooled by Flask-SQLAlchemy."""
        app.config["SQLALCHEMY_DATABASE_URI"] = settings.sqlalchemy_url
        app.config["SQLALCHEMY_ENGINE_OPTIONS"] = _engine_options(settings)
        db.init_app(app)
        with app.app_context():
            database = cls(db.engine)
        if database.engine.dialect.name != "sqlite":
            from tokenserver.storage.connections import GRACE_SECONDS, guard

            database.gate = guard(database.engine, settings.database_timeout + GRACE_SECONDS)
        return database

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Commit what `work` did, all or nothing; again from its start after a serialization failure.

        `work` may therefore run several times and must have no effect outside the transaction.
        Raises StoreUnavailable when the database is away or stays contended; IntegrityError passes.
        """
        return elsewhere(lambda: self._timed(work, "IMMEDIATE", "write"))

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Like `write`, for work that only reads."""
        return elsewhere(lambda: self._timed(work, "DEFERRED", "read"))

    def _timed(self, work: Callable[[Transaction], T], sqlite_begin: str, kind: str) -> T:
        started = time.perf_counter()
        try:
            return self._run(work, sqlite_begin)
        except StoreUnavailable as error:
            metrics.store_failures.count(error.store)
            raise
        finally:
            metrics.sql_seconds.observe(time.perf_counter() - started, kind)

    def _run(self, work: Callable[[Transaction], T], sqlite_begin: str) -> T:
        started = time.monotonic()
        for attempt in count(1):
            try:
                return self._once(work, sqlite_begin)
            except IntegrityError:
                raise
            except DBAPIError as error:
                if _sqlstate(error) in RETRIED_SQLSTATES and attempt < MAX_TRIES:
                    time.sleep(random.uniform(0.5, 1.0) * 0.01 * 2**attempt)  # noqa: S311 - jitter, no secret
                    continue
                if _is_busy_file(error) and time.monotonic() - started < _sqlite_patience() - SQLITE_SECONDS:
                    continue
                if _is_bad_input(error):
                    raise
                raise StoreUnavailable("sql", type(error.orig).__name__) from error
            except PoolTimeoutError as error:
                raise StoreUnavailable("sql", "no free connection") from error
        raise AssertionError("unreachable")  # pragma: no cover

    def _once(self, work: Callable[[Transaction], T], sqlite_begin: str) -> T:
        committed: bool | None = False
        with Transaction(self.engine, expire_on_commit=False, info=dict(self.info)) as transaction:
            try:
                with self._turn(sqlite_begin), _undone(transaction):
                    connection = transaction.connection(execution_options={"sqlite_begin": sqlite_begin})
                    with _patience(connection) if _unhurried.get() else nullcontext():
                        result = work(transaction)
                        transaction.flush()
                        for finish in transaction.info.get(_COMMITTING, ()):
                            finish()
                        committed = None  # from here until the commit has returned, nobody knows
                        transaction.commit()
                    committed = True
                return result
            except DBAPIError as error:
                if _is_rolled_back(error):
                    committed = False
                raise
            finally:
                for callback in transaction.info.get(_ENDED, ()):
                    callback(committed)

    def _turn(self, sqlite_begin: str) -> AbstractContextManager[None]:
        """Of a writer, from before its transaction until after it."""
        if self._queue is None or sqlite_begin != "IMMEDIATE":
            return nullcontext()
        return self._queue.turn(_sqlite_patience())


@contextmanager
def _undone(transaction: Transaction) -> Iterator[None]:
    """When it fails. Closing alone would leave objects that its work added as if they were stored: the next try
    would not store them again."""
    try:
        yield
    except BaseException:
        transaction.rollback()
        raise


@contextmanager
def _patience(connection: Connection) -> Iterator[None]:
    raw = connection.connection.dbapi_connection
    usual = getattr(raw, "patience", None)
    if usual is None:
        yield  # SQLite, or a connection that waits for ever anyway
        return
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{UNHURRIED_SECONDS}s'")
    raw.patience = UNHURRIED_SECONDS + usual  # type: ignore[union-attr]
    try:
        yield
    finally:
        raw.patience = usual  # type: ignore[union-attr]


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "pgcode", None)


def _is_rolled_back(error: DBAPIError) -> bool:
    """Whether the database says so itself, as it may in answer to COMMIT too: a conflict, a violated constraint."""
    state = _sqlstate(error) or ""
    return state[:2] in {"23", "40"} and state != UNKNOWN_SQLSTATE


def _is_busy_file(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _is_bad_input(error: DBAPIError) -> bool:
    """A programming error or a value the database refuses (SQLSTATE class 22, 23, 42): not an outage."""
    state = _sqlstate(error)
    if state is not None:
        return state[:2] in {"22", "23", "42"}
    return isinstance(error.orig, sqlite3.ProgrammingError | sqlite3.DataError)


def _engine_options(settings: Settings) -> dict[str, Any]:
    if settings.sqlalchemy_url.startswith("sqlite"):
        return {
            # The file's lock is the queue. Each statement that is kept takes 4 to 10 KB.
            "connect_args": {"timeout": SQLITE_SECONDS, "check_same_thread": False, "cached_statements": 32},
            "pool_size": settings.threads + 4,
            # Few connections, that have their statements and pages, do most of the work.
            "pool_use_lifo": True,
        }
    # Not with SQLite: the driver and its libraries take 5 MB.
    from tokenserver.storage.connections import connect_arguments

    return {
        # A dead connection is found before it is used, so that a restart of the database costs no request.
        "pool_pre_ping": True,
        "pool_size": settings.threads + 2,
        "max_overflow": 2,
        "pool_timeout": 2,
        "connect_args": connect_arguments(settings.sqlalchemy_url, settings.database_timeout),
    }


def _prepare_sqlite(engine: Engine) -> None:
    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours, below
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        _keep_wal(connection)

    def on_begin(connection: Any) -> None:
        # A transaction that reads first and writes later would fail at once, not wait, when another one wrote
        # meanwhile; so writers take the lock at their start.
        kind = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {kind}")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)


def _sqlite_patience() -> float:
    """SQLite's queue isn't fair: of many processes one may come too late again and again."""
    return 60 if _unhurried.get() else SQLITE_SECONDS


def _keep_wal(connection: sqlite3.Connection) -> None:
    """The first one to come changes the file; SQLite lets the others who try at that moment fail at once."""
    deadline = time.monotonic() + _sqlite_patience()
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.01, 0.05))  # noqa: S311 - jitter, no secret
        else:
            return
