"""E05, E09, E12, E13 and E19 of the fault plan in short, in this process; docs/reliability.md says where the others
are. The checker of histories decides.
"""

import contextlib
import shutil
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.history import Kind, Outcome, check
from tests.faults.stores import PostgresProcess, wait_until
from tests.redis_servers import Sentinel
from tokenserver import first_start
from tokenserver.app import create_app, rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.tokens.models import RefreshFamily
from tokenserver.tokens.sessions import EndReason

GRACE = 10


@contextlib.contextmanager
def refreshing(clients, holders):
    """Each holder in a thread of its own, on and on. Yields a call that waits until each was answered anew."""
    stop = threading.Event()

    def run(holder):
        while not stop.is_set():
            op = clients.refresh(holder)
            if op.outcome is Outcome.FAIL:
                return
            stop.wait(0.1 if op.outcome is Outcome.UNKNOWN else 0.02)

    def until(outcome):
        since = time.monotonic()

        def answered():
            found = {op.family for op in clients.history.ops if op.started > since and op.outcome is outcome}
            return {holder.name for holder in holders} <= found

        wait_until(answered, f"everybody's answer is {outcome}")

    with ThreadPoolExecutor(len(holders)) as pool:
        for holder in holders:
            pool.submit(run, holder)
        try:
            yield until
        finally:
            stop.set()


def test_refresh_and_revocation_at_once_leave_nothing_live(apps, clients_of, history):
    """E05."""
    clients = clients_of(apps(), apps())
    holders = clients.holders(8, people=2)
    start = threading.Barrier(2)

    def at_once(ask):
        start.wait()
        return ask()

    with ThreadPoolExecutor(2) as pool:
        for holder in holders:
            refresh = pool.submit(at_once, lambda holder=holder: clients.refresh(holder, node=0))
            revoke = pool.submit(at_once, lambda holder=holder: clients.end(holder))
            assert revoke.result().outcome is Outcome.OK
            refresh.result()
    clients.settle_ended(holders)
    assert check(history.ops, grace=GRACE).violations == []
    assert sum(op.probe for op in history.ops if op.kind is Kind.ACCESS) == 16


@pytest.mark.parametrize("backend", ["postgresql"])
def test_who_ends_a_family_first_records_it(apps, clients_of, history):
    """E04: the request that met a replay and the drainer both end the family, maybe at once; it is one event."""
    rooms, other = rooms_of(apps()), rooms_of(apps())
    clients = clients_of(apps.made[0])
    (holder,) = clients.holders(1)

    with ThreadPoolExecutor(1) as pool:

        def end(tx, change):
            rooms.sessions.end(tx, change, family_id=family_id, reason=EndReason.REVOKED)
            late = pool.submit(other.sessions.end_reused, family_id)
            # It waits for this transaction, having seen a live family.
            wait_until(lambda: waiting(other), "the other one waits")
            return late

        family_id = rooms.refresh_tokens.parse(holder.refresh_token)[0]
        rooms.feed.change(end).result()
    events = rooms.database.read(lambda tx: [row.event for row in tx.query(AuditEvent)])
    assert events.count("session:ended") == 1
    assert events.count("refresh_token:reused") == 0
    ended = rooms.database.read(lambda tx: tx.get(RefreshFamily, family_id))
    assert ended.end_reason == "revoked"


def waiting(rooms):
    statement = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    return rooms.database.read(lambda tx: tx.connection().exec_driver_sql(statement).scalar())


class TestRedisKilled:
    @pytest.fixture
    def redis_url(self, own_redis):
        own_redis.stop()
        own_redis.start("--appendonly", "yes")
        return own_redis.url()

    def test_under_load(self, apps, clients_of, history, own_redis):
        """E09."""
        clients = clients_of(apps(), apps())
        holders, ended = clients.holders(3, people=3), clients.holders(2, people=1)
        for holder in ended:
            clients.end(holder)
        with refreshing(clients, holders) as until:
            until(Outcome.OK)
            own_redis.stop(kill=True)
            until(Outcome.UNKNOWN)
            own_redis.start("--appendonly", "yes")
            until(Outcome.OK)
        clients.settle(holders)
        clients.settle_ended(ended)
        assert check(history.ops, grace=GRACE).violations == []

    def test_met_while_it_loads(self, apps, clients_of, history, own_redis):
        """E26: who asks then learns who it is and no more; that must not keep all away once it has loaded."""
        clients = clients_of(apps(), apps())
        holders = clients.holders(3, people=1)
        with own_redis.admin().pipeline(transaction=False) as pipeline:
            for number in range(10_000):
                pipeline.set(f"other:{number}", "x")
            pipeline.execute()
        with refreshing(clients, holders) as until:
            until(Outcome.OK)
            own_redis.stop(kill=True)
            until(Outcome.UNKNOWN)
            # For about two seconds it refuses what it is asked; it listens after each 1024 commands of its file.
            own_redis.start("--appendonly", "yes", "--key-load-delay", "200")
            until(Outcome.OK)
        assert check(history.ops, grace=GRACE).violations == []


def test_a_restart_of_all_processes_begins_no_new_grace(apps, clients_of, history):
    """E12; Keycloak's CVE-2026-9802 counted from the start of the process."""
    before = clients_of(apps(refresh_grace=1))
    (holder,) = before.holders(1)
    first = holder.refresh_token
    before.refresh(holder)
    rooms_of(apps.made[0]).checkpoints.drain()
    rotated = time.monotonic()
    wait_until(lambda: time.monotonic() > rotated + 1.1, "the grace is over")
    apps.close()
    restarted = clients_of_again(before, apps(refresh_grace=1))
    assert restarted.refresh(holder, first, honest=False).outcome is Outcome.FAIL
    assert check(history.ops, grace=1).violations == []


def clients_of_again(clients, *apps):
    """The same people, at other processes."""
    from tests.faults.conftest import AppHttp

    clients.urls = [f"restarted {number}" for number in range(len(apps))]
    clients._make_http = lambda urls: AppHttp(urls, apps)
    clients._local = threading.local()
    return clients


@pytest.mark.parametrize("backend", ["postgresql"])
class TestStaleReplica:
    @pytest.fixture
    def sentinel(self):
        with Sentinel() as running:
            yield running

    @pytest.fixture
    def redis_url(self, sentinel):
        return sentinel.url()

    def test_promoted(self, apps, clients_of, history, sentinel):
        """E13."""
        clients = clients_of(apps(), apps())
        holders, rested, ended = clients.holders(2), clients.holders(2, people=1), clients.holders(2, people=1)
        master, replica = sentinel.master, sentinel.replica
        replica.pause()
        master.client().execute_command("CLIENT KILL TYPE REPLICA")
        with refreshing(clients, holders) as until:
            for holder in rested:
                clients.refresh(holder)
                clients.refresh(holder)
            for holder in ended:
                clients.end(holder)
            until(Outcome.OK)
            wait_until(rooms_of(apps.made[0]).checkpoints.drain, "SQL knows what was rotated")
            master.kill()
            lost = time.monotonic()
            replica.resume()
            sentinel.promoted(master)
            until(Outcome.OK)
        clients.settle(holders + rested)
        clients.settle_ended(ended)
        verdict = check(history.ops, grace=GRACE, losses=[lost])
        assert verdict.violations == []


class TestPostgresKilled:
    @pytest.fixture
    def own_postgres(self):
        folder = Path(tempfile.mkdtemp(prefix="ts-"))
        folder.chmod(0o755)
        server = PostgresProcess(folder, folder / "template", fsync="off")
        server.start()
        yield server
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)

    @pytest.fixture
    def settings(self, databases, own_postgres, redis_url):
        made = databases.settings(own_postgres.url, redis_url=redis_url)
        app = create_app(made)
        list(first_start.prepare(rooms_of(app)))
        rooms_of(app).database.engine.dispose()
        rooms_of(app).store.close()
        return made

    def test_under_load(self, apps, clients_of, history, own_postgres):
        """E19."""
        clients = clients_of(apps(), apps())
        holders = clients.holders(3, people=3)
        with refreshing(clients, holders) as until:
            until(Outcome.OK)
            newcomer = clients.sign_in(clients.people(1)[0])
            own_postgres.kill()
            answer = clients.http.ask(0, "/auth/login", body={"login": "nobody", "password": "a wrong guess"})
            assert (answer.status, answer.retry_after) == (503, "1")
            own_postgres.start()
            clients.sign_in(newcomer.name.partition("#")[0])
            until(Outcome.OK)
            assert own_postgres.process is not None
            own_postgres.process.send_signal(signal.SIGQUIT)  # an immediate shutdown
            own_postgres.process.wait(20)
            own_postgres.start()
            clients.sign_in(newcomer.name.partition("#")[0])
        clients.settle([*holders, newcomer])
        assert check(history.ops, grace=GRACE).violations == []
