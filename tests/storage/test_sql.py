"""The one way to run a transaction: retries what the database asks to retry, and says so when it is away."""

import threading
import time

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.exc import IntegrityError, ProgrammingError

from tokenserver.app import rooms_of
from tokenserver.config import Settings
from tokenserver.errors import StoreUnavailable
from tokenserver.storage.sql import MAX_TRIES, Database


@pytest.fixture
def serializable(databases):
    """CockroachDB's isolation level, on PostgreSQL."""
    url = databases.empty("postgresql").replace("postgresql://", "postgresql+psycopg2://")
    engine = sa.create_engine(url, isolation_level="SERIALIZABLE")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE counters (id int PRIMARY KEY, value int)")
        connection.exec_driver_sql("INSERT INTO counters VALUES (1, 0)")
    yield Database(engine)
    engine.dispose()


def test_serialization_failures_are_retried_until_they_pass(serializable):
    """SQLSTATE 40001, really raised: readers of one row that then write it."""
    tries = []
    barrier = threading.Barrier(2, timeout=10)

    def increment(tx):
        tries.append(1)
        value = tx.execute(sa.text("SELECT value FROM counters WHERE id = 1")).scalar_one()
        if len(tries) <= 2:
            barrier.wait()
        tx.execute(sa.text("UPDATE counters SET value = :v WHERE id = 1"), {"v": value + 1})

    threads = [threading.Thread(target=serializable.write, args=(increment,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    value = serializable.read(lambda tx: tx.execute(sa.text("SELECT value FROM counters")).scalar_one())
    assert value == 2
    assert len(tries) == 3


def test_endless_contention_is_unavailable_not_an_error(serializable):
    tries = []

    def fail(tx):
        tries.append(1)
        tx.execute(sa.text("DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$"))

    with pytest.raises(StoreUnavailable):
        serializable.write(fail)
    assert len(tries) == MAX_TRIES


def test_nothing_stays_of_a_failed_transaction(rooms):
    def fail(tx):
        tx.execute(sa.text("DELETE FROM role_permissions"))
        raise ValueError

    with pytest.raises(ValueError):
        rooms.database.write(fail)
    assert rooms.database.read(lambda tx: tx.execute(sa.text("SELECT count(*) FROM role_permissions")).scalar_one())


def test_errors_of_the_program_are_not_outages(rooms):
    with pytest.raises((ProgrammingError, sa.exc.OperationalError, StoreUnavailable)):
        rooms.database.read(lambda tx: tx.execute(sa.text("SELECT 1 FROM nowhere")))


def test_integrity_errors_reach_the_caller(rooms):
    insert = sa.text("INSERT INTO server_state VALUES (1, '', '', 0, NULL)")
    with pytest.raises(IntegrityError):
        rooms.database.write(lambda tx: tx.execute(insert))


@pytest.mark.parametrize("backend", ["sqlite"])
class TestSQLite:
    def test_pragmas(self, rooms):
        def pragma(name):
            return rooms.database.read(lambda tx: tx.execute(sa.text(f"PRAGMA {name}")).scalar_one())

        assert pragma("journal_mode") == "wal"
        assert pragma("foreign_keys") == 1
        assert pragma("synchronous") == 2
        assert pragma("busy_timeout") == 5000

    def test_writers_queue_up_instead_of_failing(self, apps):
        """Two processes that read and then write: with a deferred BEGIN one of them would fail at once."""
        databases = [rooms_of(apps()).database for _ in range(2)]
        count = sa.text("SELECT longest_token_lifetime FROM server_state")

        def increment(tx):
            value = tx.execute(count).scalar_one()
            time.sleep(0.01)
            tx.execute(sa.text("UPDATE server_state SET longest_token_lifetime = :v"), {"v": value + 1})

        before = databases[0].read(lambda tx: tx.execute(count).scalar_one())
        threads = [threading.Thread(target=databases[i % 2].write, args=(increment,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert databases[0].read(lambda tx: tx.execute(count).scalar_one()) == before + 12


def test_a_database_that_is_away_is_unavailable():
    settings = Settings(database_url="postgresql://nobody@127.0.0.1:1/none", redis_url="unix:///nowhere")
    database = Database.of(Flask("away"), settings)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        database.read(lambda tx: tx.execute(sa.text("SELECT 1")))
    assert time.monotonic() - started < 10


def test_tls_parameters_reach_the_driver():
    url = "cockroachdb://root@127.0.0.1:26257/defaultdb?sslmode=verify-full&sslrootcert=/c/ca.crt&sslcert=/c/c.crt"
    database = Database.of(Flask("tls"), Settings(database_url=url, redis_url="unix:///nowhere"))
    _, options = database.engine.dialect.create_connect_args(database.engine.url)
    assert options["sslmode"] == "verify-full"
    assert options["sslrootcert"] == "/c/ca.crt"
    assert options["sslcert"] == "/c/c.crt"
    assert database.engine.dialect.name == "cockroachdb"
