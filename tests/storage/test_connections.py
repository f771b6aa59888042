"""E23, E24: an SQL server that hangs, dies, is full or holds a lock costs 503s, never a thread or a double."""

import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa
from flask import Flask

from tests.postgres_servers import PostgresServer, postgres_server
from tokenserver import first_start
from tokenserver.app import rooms_of
from tokenserver.config import Settings
from tokenserver.errors import StoreUnavailable
from tokenserver.storage import connections
from tokenserver.storage.connections import connect_arguments
from tokenserver.storage.sql import Database, unhurried, when_ended

PATIENCE = 30.0
ONE = sa.text("SELECT 1")


@pytest.fixture(scope="module")
def shared_server():
    with postgres_server(max_connections="20") as server:
        yield server


@pytest.fixture
def server(shared_server):
    """Runs, whatever the test before did to it."""
    yield shared_server
    shared_server.resume()
    if not shared_server.processes():
        shared_server.start()


def database_of(url: str, seconds: int = 1) -> Database:
    settings = Settings(database_url=url, redis_url="unix:///nowhere", database_timeout=seconds)
    return Database.of(Flask("test"), settings)


@pytest.fixture
def database(server):
    database = database_of(server.url())
    yield database
    server.resume()
    database.engine.dispose()


def ask(database: Database) -> int:
    return database.read(lambda tx: tx.execute(ONE).scalar_one())


def outcomes(work, threads: int) -> Counter:
    """What many threads met that started together; none may hang."""
    met: list[str] = []
    barrier = threading.Barrier(threads, timeout=PATIENCE)

    def run() -> None:
        barrier.wait()
        try:
            work()
            met.append("ok")
        except StoreUnavailable:
            met.append("unavailable")

    started = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a thread waits for ever"
    return Counter(met)


def connect_until_refused(server: PostgresServer) -> list:
    held = []
    try:
        while len(held) < 1000:
            held.append(psycopg2.connect(server.url()))
    except psycopg2.OperationalError:
        return held
    raise AssertionError("it takes any number")


def heals(database: Database) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            assert ask(database) == 1
            return
        except StoreUnavailable:
            assert time.monotonic() < deadline, "it does not heal"
            time.sleep(0.05)


def test_a_server_that_hangs_in_a_statement_holds_no_thread(database, server):
    """SIGSTOP: its kernel acknowledges everything, and no answer comes."""

    def hang(tx):
        tx.execute(ONE)
        server.hang()
        tx.execute(ONE)

    assert outcomes(lambda: database.read(hang), 1) == {"unavailable": 1}
    assert outcomes(lambda: ask(database), 8)["ok"] == 0
    server.resume()
    heals(database)


def test_a_commit_that_is_not_answered_has_no_known_outcome(database, server):
    server.sql("DROP TABLE IF EXISTS counted", "CREATE TABLE counted (n int)")
    ended = []

    def insert(tx):
        when_ended(tx, ended.append)
        tx.execute(sa.text("INSERT INTO counted VALUES (1)"))
        server.hang()

    assert outcomes(lambda: database.write(insert), 1) == {"unavailable": 1}
    assert ended == [None]  # once: what may have been done isn't done again
    server.resume()
    heals(database)
    assert database.read(lambda tx: tx.execute(sa.text("SELECT count(*) FROM counted")).scalar_one()) <= 1


def test_a_pooled_connection_that_hangs_is_noticed_before_it_is_used(database, server):
    assert ask(database) == 1
    server.hang()
    ran = []
    with pytest.raises(StoreUnavailable):
        database.read(ran.append)
    assert not ran
    server.resume()
    heals(database)


def test_rows_that_are_fetched_bit_by_bit_are_waited_for_no_longer(database, server):
    reached = []

    def fetch(tx):
        numbers = sa.select(sa.func.generate_series(1, 1_000_000).column_valued("n"))
        parts = tx.execute(numbers, execution_options={"yield_per": 10}).partitions()
        next(parts)
        server.hang()
        for _ in parts:
            pass
        reached.append("the end")

    assert outcomes(lambda: database.read(fetch), 1) == {"unavailable": 1}
    assert not reached


def test_while_it_is_away_one_try_at_a_time_is_made():
    """A listener of ours that accepts and says nothing counts who tries."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        accepted = []

        def accept() -> None:
            while True:
                try:
                    accepted.append(listener.accept())
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        database = database_of(f"postgresql://x@127.0.0.1:{listener.getsockname()[1]}/x?connect_timeout=2")
        assert outcomes(lambda: ask(database), 1) == {"unavailable": 1}
        before = len(accepted)
        assert before == 1
        for _ in range(5):
            assert outcomes(lambda: ask(database), 16) == {"unavailable": 16}
        assert len(accepted) - before <= 5  # each 2 s long; 80 were refused
        listener.shutdown(socket.SHUT_RDWR)
        for connection, _ in accepted:
            connection.close()


def test_killed_and_started_again_it_heals_by_itself(database, server):
    """All of its connections die at once, in the pool and in use."""
    assert outcomes(lambda: ask(database), 8) == {"ok": 8}
    server.kill()
    assert outcomes(lambda: ask(database), 8) == {"unavailable": 8}
    server.start()
    heals(database)
    assert outcomes(lambda: ask(database), 8) == {"ok": 8}


def test_a_connection_that_the_server_ended_costs_no_request(database, server):
    assert ask(database) == 1
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tokenserver'")
    assert ask(database) == 1


def test_a_slow_statement_is_ended_by_the_server(database):
    with pytest.raises(StoreUnavailable):
        database.read(lambda tx: tx.execute(sa.text("SELECT pg_sleep(60)")))
    assert ask(database) == 1


def test_who_is_unhurried_may_take_longer(database):
    """And only in that transaction: the connection goes back as it was."""

    def limits(tx):
        raw = tx.connection().connection.dbapi_connection
        return tx.execute(sa.text("SHOW statement_timeout")).scalar_one(), raw.patience

    with unhurried():
        assert database.read(limits) == ("30min", 1803.0)
    assert database.read(limits) == ("1s", 3.0)
    assert database.read(lambda tx: tx.execute(sa.text("SHOW lock_timeout")).scalar_one()) == "500ms"


def test_the_url_has_the_last_word():
    url = "postgresql://u@h/d?connect_timeout=9&options=-c%20lock_timeout%3D1s%20-c%20search_path%3Dx"
    arguments = connect_arguments(url, 8)
    assert "connect_timeout" not in arguments
    assert arguments["keepalives_idle"] == 5
    assert arguments["options"] == (
        "-c statement_timeout=8s -c idle_in_transaction_session_timeout=60s -c lock_timeout=1s -c search_path=x"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_no_descriptor_is_left_behind(database):
    def descriptors():
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    ask(database)
    database.engine.dispose()
    before = descriptors()
    for _ in range(5):
        ask(database)
        database.engine.dispose()
    assert descriptors() == before


class TestRequests:
    """What clients see of it: 503 with Retry-After, and what was asked is done once."""

    @pytest.fixture
    def settings(self, server: PostgresServer, databases, redis_url):
        name = f"t{time.monotonic_ns()}"
        server.sql(f"CREATE DATABASE {name}")
        return databases.settings(server.url(name), redis_url=redis_url, database_timeout=2)

    @pytest.fixture
    def rooms(self, app):
        rooms = rooms_of(app)
        list(first_start.prepare(rooms))
        return rooms

    @pytest.fixture
    def other(self, settings):
        """Somebody else's connection to the same database."""
        connection = psycopg2.connect(settings.database_url)
        yield connection
        connection.close()

    def test_a_family_row_that_somebody_holds(self, rooms, api, other):
        """E24: refreshes go on; what needs the row is refused, and done once when it is asked again."""
        tokens = api.signed_in()
        bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
        other.cursor().execute("SELECT id FROM refresh_families FOR UPDATE")
        refused = api.http.post("/auth/logout", headers=bearer)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json["code"] == "store_unavailable"
        refreshed = api.refresh(tokens["refresh_token"])
        assert refreshed.status_code == 200
        other.rollback()
        assert api.http.post("/auth/logout", headers=bearer).status_code == 204
        assert api.refresh(refreshed.json["refresh_token"]).status_code == 401
        with other.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM audit_events WHERE event = 'session:ended'")
            assert cursor.fetchone() == (1,)

    @pytest.mark.parametrize("when", ["users DEFERRABLE INITIALLY DEFERRED", "role_assignments", "users"])
    @pytest.mark.parametrize(("failures", "status", "users"), [(3, 201, 1), (100, 503, 0)])
    def test_conflicts_are_tried_again_a_few_times(self, rooms, api, other, failures, status, users, when):
        """E24: a trigger raises 40001, as CockroachDB would, in answer to COMMIT or to a statement before it; a
        sequence counts, since nothing rolls it back."""
        other.autocommit = True
        other.cursor().execute(f"""
            CREATE SEQUENCE tries;
            CREATE FUNCTION conflict() RETURNS trigger AS $$ BEGIN
                IF nextval('tries') <= {failures} THEN
                    RAISE EXCEPTION 'restart transaction' USING ERRCODE = '40001';
                END IF; RETURN NEW; END $$ LANGUAGE plpgsql;
            CREATE CONSTRAINT TRIGGER conflict AFTER INSERT ON {when}
                FOR EACH ROW EXECUTE FUNCTION conflict()""")
        body = {"username": "eve", "email": "eve@example.org", "password": "correct horse 7 battery"}
        answer = api.http.post("/auth/register", json=body)
        assert answer.status_code == status
        assert ("Retry-After" in answer.headers) is (status == 503)
        with other.cursor() as cursor:
            cursor.execute("SELECT last_value FROM tries")
            assert cursor.fetchone() == (min(failures + 1, 6),)
            cursor.execute("SELECT count(*) FROM users WHERE username = 'eve'")
            assert cursor.fetchone() == (users,)
            cursor.execute("SELECT count(*) FROM audit_events WHERE event = 'user:created'")
            assert cursor.fetchone() == (1 + users,)  # the first admin's

    def test_a_server_without_a_free_connection(self, rooms, api, server):
        """E23: refused at once, nothing waits for what it holds itself, and it heals when there is room."""
        tokens = api.signed_in()
        rooms.database.engine.dispose()
        held = connect_until_refused(server)
        bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
        answers = [
            api.http.post("/auth/logout", headers=bearer),
            api.http.post("/auth/login", json={"login": "ann", "password": "x"}),
            api.http.get("/readyz"),
        ]
        assert [answer.status_code for answer in answers] == [503] * 3
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
        assert api.refresh(tokens["refresh_token"]).status_code in {200, 503}
        for connection in held:
            connection.close()
        heals(rooms.database)
        assert api.http.post("/auth/logout", headers=bearer).status_code == 204

    def test_pooled_connections_serve_on_while_no_new_one_can_be_had(self, rooms, api, server):
        api.signed_in()
        held = connect_until_refused(server)
        statuses = {api.http.get("/readyz").status_code for _ in range(5)}
        for connection in held:
            connection.close()
        assert statuses == {200}


def test_the_watchdog_is_one_thread_for_all(server):
    databases = [database_of(server.url()) for _ in range(3)]
    for database in databases:
        ask(database)
        database.engine.dispose()
    assert sum(thread.name == "sql watchdog" for thread in threading.enumerate()) == 1
    assert connections.watchdog is not None
