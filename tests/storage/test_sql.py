"""The one way to run a transaction: retries what the database asks to retry, and says so when it is away."""

import subprocess
import sys
import threading
import time
import uuid

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.exc import IntegrityError, ProgrammingError

from tokenserver.app import rooms_of
from tokenserver.config import Settings
from tokenserver.errors import StoreUnavailable
from tokenserver.storage import sql
from tokenserver.storage.sql import MAX_TRIES, Database, new_id_text, ordered_id_text, unhurried, when_ended


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


CONTENDER = """
import sys, threading, uuid
import sqlalchemy as sa
from tokenserver.errors import StoreUnavailable
from tokenserver.storage.sql import Database, when_ended

url, threads, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
engine = sa.create_engine(url, isolation_level="SERIALIZABLE", pool_size=threads)
database = Database(engine)
conflicts, refused, ended = [], [], []

@sa.event.listens_for(engine, "handle_error")
def count(context):
    if context.original_exception.pgcode == "40001":
        conflicts.append(1)

def increment(tx):
    when_ended(tx, ended.append)
    value = tx.execute(sa.text("SELECT value FROM counters WHERE id = 1")).scalar_one()
    tx.execute(sa.text("INSERT INTO effects VALUES (:id)"), {"id": uuid.uuid4()})
    tx.execute(sa.text("UPDATE counters SET value = :v WHERE id = 1"), {"v": value + 1})

def work():
    for _ in range(rounds):
        while True:
            try:
                database.write(increment)
                break
            except StoreUnavailable:
                refused.append(1)

workers = [threading.Thread(target=work) for _ in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
engine.dispose()
print(len(conflicts), len(refused), ended.count(True), ended.count(None))
"""


def test_under_contention_every_commit_counts_once(serializable):
    """Two processes with four threads each that read a number, note it and write the next one."""
    with serializable.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE effects (id uuid PRIMARY KEY)")
    url = serializable.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", CONTENDER, url, "4", "10"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=240)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    conflicts, _, committed, unknown = (sum(map(int, column)) for column in zip(*said, strict=True))
    with serializable.engine.connect() as connection:
        value = connection.exec_driver_sql("SELECT value FROM counters").scalar_one()
        effects = connection.exec_driver_sql("SELECT count(*) FROM effects").scalar_one()
    assert (value, effects, committed, unknown) == (80, 80, 80, 0)
    assert conflicts > 0


@pytest.mark.parametrize(
    ("state", "tries", "ends"),
    [("40001", MAX_TRIES, [False] * MAX_TRIES), ("40003", 1, [None]), ("23514", 1, [False])],
)
def test_what_is_answered_to_a_commit(serializable, state, tries, ends):
    """40001, "restart transaction": again. 40003, CockroachDB's ambiguous result: never again, it may have been
    done. A violated constraint: the caller's."""
    with serializable.engine.begin() as connection:
        connection.exec_driver_sql(f"""
            CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN
                RAISE EXCEPTION 'at the end' USING ERRCODE = '{state}'; END $$ LANGUAGE plpgsql;
            CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON counters DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION refuse()""")
    ran, ended = [], []

    def work(tx):
        ran.append(1)
        when_ended(tx, ended.append)
        tx.execute(sa.text("UPDATE counters SET value = 9"))

    with pytest.raises(IntegrityError if state == "23514" else StoreUnavailable):
        serializable.write(work)
    assert (len(ran), ended) == (tries, ends)


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

    def test_commands_wait_longer_than_requests(self, apps, monkeypatch):
        """For a file that another process holds."""
        monkeypatch.setattr(sql, "SQLITE_SECONDS", 0.1)
        holder, database = rooms_of(apps()).database, rooms_of(apps()).database
        held, release = threading.Event(), threading.Event()

        def hold(tx):
            held.set()
            release.wait(60)

        thread = threading.Thread(target=holder.write, args=(hold,))
        thread.start()
        held.wait(60)
        with pytest.raises(StoreUnavailable):
            database.write(lambda tx: None)
        done = []

        def command():
            with unhurried():
                database.write(lambda tx: done.append(1))

        waiting = threading.Thread(target=command)
        waiting.start()
        waiting.join(5 * sql.SQLITE_SECONDS)
        assert not done
        release.set()
        waiting.join()
        thread.join()
        assert done

    def test_writers_queue_up_instead_of_failing(self, apps):
        """Two processes that read and then write: with a deferred BEGIN one of them would fail at once."""
        databases = [rooms_of(apps()).database for _ in range(2)]
        count = sa.text("SELECT longest_token_lifetime FROM server_state WHERE id = 1")

        def increment(tx):
            value = tx.execute(count).scalar_one()
            time.sleep(0.01)
            tx.execute(
                sa.text("UPDATE server_state SET longest_token_lifetime = :v WHERE id = 1"), {"v": value + 1}
            )

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


def test_ids_in_the_order_of_time():
    """RFC 9562 section 5.7."""
    texts = [ordered_id_text(ms) for ms in (0, 1_700_000_000_000, 1_700_000_000_001, 2**48 - 1) for _ in range(500)]
    assert len(set(texts)) == 2000
    for start in range(0, 2000, 500):
        assert max(texts[:start], default="") < min(texts[start:])
    ids = [uuid.UUID(text) for text in texts]
    assert [str(each) for each in ids] == texts
    assert {(each.version, each.variant) for each in ids} == {(7, uuid.RFC_4122)}
    assert {text[19] for text in texts} == set("89ab")


def test_an_id_as_text():
    """RFC 9562 section 5.4."""
    texts = {new_id_text() for _ in range(1000)}
    assert len(texts) == 1000
    ids = [uuid.UUID(text) for text in texts]
    assert {str(each) for each in ids} == texts
    assert {(each.version, each.variant) for each in ids} == {(4, uuid.RFC_4122)}
    assert {text[19] for text in texts} == set("89ab")
