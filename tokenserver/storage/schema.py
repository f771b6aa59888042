"""The schema's version: one Alembic history, in `migrations/`, for every backend.

Any number of nodes may upgrade at once. On SQLite and PostgreSQL one does it and the others wait for its lock; on
CockroachDB, whose advisory locks do nothing, all of them do, in steps that may be repeated (ADR 0015).
"""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from tokenserver.errors import StoreUnavailable
from tokenserver.storage import revisions
from tokenserver.storage.connections import WatchedConnection
from tokenserver.storage.sql import Database

logger = logging.getLogger("tokenserver.schema")

T = TypeVar("T")

WAIT_SECONDS: Final = 600.0  # for another node that is at it
# For the lock on a table: whoever comes after a waiting ALTER TABLE waits as well, so it gives up and tries again.
LOCK_SECONDS: Final = 3
MAX_TRIES: Final = 20
ADVISORY_LOCK: Final = 0x746F6B656E736572  # "tokenser"
LOCK_NOT_AVAILABLE: Final = "55P03"


def head() -> str | None:
    return ScriptDirectory.from_config(config()).get_current_head()


def is_known(revision: str) -> bool:
    """Whether this version has the step."""
    try:
        ScriptDirectory.from_config(config()).get_revision(revision)
    except CommandError:
        return False
    return True


def upgrade(database: Database, to: str = "head") -> str | None:
    """The revision that was found; what was missing to `to` is there afterwards, whoever did it.

    Raises StoreUnavailable.
    """
    ways = {"sqlite": _upgrade_sqlite, "postgresql": _upgrade_postgresql}
    with _outages(), _unlimited(database) as connection:
        return ways.get(database.engine.dialect.name, _upgrade_in_company)(connection, to)


def _upgrade_sqlite(connection: Connection, to: str) -> str | None:
    """All steps in one transaction, which holds the file's lock from its start."""
    connection = connection.execution_options(sqlite_begin="IMMEDIATE")

    def run() -> str | None:
        with connection.begin():
            found = _revision(connection)
            _run(connection, to)
            return found

    return _retried(run, lambda error: "locked" in str(error.orig))


def _upgrade_postgresql(connection: Connection, to: str) -> str | None:
    """Each step in a transaction; a lock of the session keeps others out, and ends with it."""
    deadline = time.monotonic() + WAIT_SECONDS
    waits = False
    while not connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({ADVISORY_LOCK})").scalar_one():
        connection.rollback()
        if not waits:
            logger.warning("another node changes the schema; waiting for it")
        waits = True
        if time.monotonic() > deadline:
            raise StoreUnavailable("sql", "another node has been changing the schema for ten minutes")
        time.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - jitter, no secret
    found = _revision(connection)
    connection.rollback()
    connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_SECONDS}s'")
    connection.commit()

    def run() -> None:
        try:
            _run(connection, to)
        finally:
            connection.rollback()

    _retried(run, lambda error: getattr(error.orig, "pgcode", None) == LOCK_NOT_AVAILABLE)
    return found


def _upgrade_in_company(connection: Connection, to: str) -> str | None:
    """Statement by statement, while others may do the same: what one lost to another is looked at again."""
    first = found = _revision(connection)
    tries = 0
    while True:
        try:
            _run(connection, to)
        except (DBAPIError, CommandError) as error:
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                raise
            before, found = found, _revision(connection)
            tries = tries + 1 if found == before else 0
            if tries == MAX_TRIES:
                raise
            logger.info("trying again from revision %s: %s", found, error)
            time.sleep(random.uniform(0.05, 0.5))  # noqa: S311 - jitter, no secret
        else:
            return first


def _retried(run: Callable[[], T], is_passing: Callable[[DBAPIError], bool]) -> T:
    """Again while what hinders may pass."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return run()
        except DBAPIError as error:
            if not is_passing(error) or time.monotonic() > deadline:
                raise
            logger.warning("the schema is in use, trying again: %s", error.orig)
            time.sleep(random.uniform(0.05, 0.5))  # noqa: S311 - jitter, no secret


def _run(connection: Connection, to: str) -> None:
    configuration = config()
    configuration.attributes["connection"] = connection
    command.upgrade(configuration, to)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def _unlimited(database: Database) -> Iterator[Connection]:
    """A connection of its own, whose statements may take as long as a large table needs."""
    with database.engine.connect() as connection:
        if connection.dialect.name != "sqlite":
            if connection.dialect.name != "postgresql":
                connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()
            raw: Any = connection.connection.dbapi_connection
            if isinstance(raw, WatchedConnection):
                raw.patience = None
            for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                connection.exec_driver_sql(f"SET {limit} = 0")
            connection.commit()
        yield connection


@contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise StoreUnavailable("sql", type(error.orig).__name__) from error


def config() -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(revisions.folder()))
    return configuration
