"""E19, E23-E25: PostgreSQL that is killed, crowded, locked or contended, and disks that are full."""

import contextlib
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2

from tests.faults.deployment import Deployment
from tests.faults.history import Outcome
from tests.faults.load import Clients, Holder, Load, Lost
from tests.faults.plan import Finding, NotHere, Run, experiment, now
from tests.faults.stores import PostgresProcess, RedisProcess, wait_until
from tests.live_server import PASSWORD

RECOVERY_SECONDS = 10.0


@experiment(
    "E19",
    "PostgreSQL under load: kill -9 of all its processes; an immediate shutdown and restart; 30 s down",
    "committed grants survive, only 503, back within 10 s without a restart of the nodes",
)
def killed(run: Run) -> Finding:
    found = Finding()
    with run.deployed() as made, run.loaded(made, churn=0.15) as load:
        for name, end, down in (
            ("kill -9", made.database.kill, 0.5),
            ("immediate restart", lambda: _immediate(made.database), 0.0),
            ("down", made.database.kill, 30.0),
        ):
            time.sleep(3)
            end()
            died = now()
            time.sleep(down)
            made.database.start()
            healed = now()
            time.sleep(7)
            refreshes, sign_in = run.recovery(healed, now()), run.first_sign_in(healed)
            refused = run.refused_share(died, healed)
            found.figures[name] = f"refused {refused}, recovery {refreshes:.1f} s, first sign-in {sign_in:.1f} s"
            found.require(max(refreshes, sign_in) <= RECOVERY_SECONDS, f"{name}: not back within 10 s")
        load.settle()
        found.tell(sign_ins_kept=len(load.newcomers))
    run.verdict(found)
    return found


def _immediate(postgres: PostgresProcess) -> None:
    """`pg_ctl stop -m immediate`."""
    assert postgres.process is not None
    postgres.process.send_signal(signal.SIGQUIT)
    postgres.process.wait(10)


@experiment(
    "E23",
    "max_connections 20 for 2 nodes × 2 workers, somebody else takes what is free; 8 s of sign-ins and refreshes",
    "503 with Retry-After at worst, no deadlock; back at once when there is room",
)
def crowded(run: Run) -> Finding:
    found = Finding()
    options = {"max_connections": "20", "superuser_reserved_connections": "0"}
    with run.deployed(postgres_options=options) as made, run.loaded(made, holders=12) as load:
        time.sleep(1)
        taken = []
        for _ in range(18):  # as many as there is room for
            with contextlib.suppress(psycopg2.OperationalError):
                taken.append(psycopg2.connect(made.database.url, connect_timeout=3))
        started = now()
        names = load.clients.people(1)
        stop = threading.Event()
        statuses = Counter[int]()

        def storm() -> None:
            while not stop.is_set():
                statuses[_sign_in(load.clients, names[0])] += 1

        with ThreadPoolExecutor(16) as pool:
            for _ in range(16):
                pool.submit(storm)
            time.sleep(8)
            for connection in taken:
                connection.close()
            healed = now()
            time.sleep(4)
            stop.set()
        load.settle()
        sign_in = run.first_sign_in(healed)
    run.verdict(found)
    found.tell(taken=len(taken), refused=run.refused_share(started, healed), first_sign_in_s=sign_in)
    found.tell(
        sign_ins=", ".join(f"{count} × {status or 'no answer'}" for status, count in sorted(statuses.items()))
    )
    found.require(set(statuses) <= {200, 503}, f"sign-ins were answered {dict(statuses)}")
    found.require(sign_in <= RECOVERY_SECONDS, f"the first sign-in came after {sign_in:.1f} s")
    return found


def _sign_in(clients: Clients, name: str) -> int:
    started = now()
    try:
        answer = clients.http.ask(clients.node(), "/auth/login", body={"login": name, "password": PASSWORD})
    except Lost:
        return 0
    if answer.status == 200:
        clients.holder(name, answer, started)
    return answer.status


@experiment(
    "E24",
    "the row of a family locked for 10 s; a deadlock with a revocation, 10 times; a trigger that raises 40001, for "
    "good and 3 times in 4",
    "tried again, then 503; each effect once",
)
def contended(run: Run) -> Finding:
    found = Finding()
    with run.deployed() as made:
        clients = run.clients(made)
        holders = clients.holders(30)

        # A lock on one family: its own revocation waits or is refused; others go on.
        locked, others = holders[0], holders[1:6]
        with made.database.connect() as session:
            session.autocommit = False
            with session.cursor() as cursor:
                cursor.execute("SELECT 1 FROM refresh_families WHERE id = %s FOR UPDATE", (locked.chain,))
                started = now()
                with ThreadPoolExecutor(2) as pool:
                    ending = pool.submit(clients.end, locked)
                    while now() < started + 10:
                        for holder in others:
                            op = clients.refresh(holder)
                            found.require(op.outcome is Outcome.OK, f"another family was answered {op.status}")
                        time.sleep(0.1)
                    session.rollback()
                    waited = ending.result()
        found.tell(revocation_of_the_locked_family=f"acknowledged after {waited.ended - started:.1f} s")

        # Two transactions, each with what the other needs: PostgreSQL ends one of them, ours or the other's.
        deadlocks = 0
        for holder in holders[6:16]:
            deadlocks += _deadlock(made, clients, holder)
        found.tell(deadlocks=deadlocks)

        # What CockroachDB says under contention, from a trigger.
        _trigger(made, "true")
        refused = clients.revoke(holders[16])
        found.require(refused.status == 503, f"contention for good is answered {refused.status}")
        _trigger(made, "nextval('faults_calls') % 4 <> 0")
        for holder in holders[16:26]:
            op = clients.revoke(holder)
            found.require(op.outcome is Outcome.OK, f"3 failures of 4 are answered {op.status}")
        made.database.ask("DROP TRIGGER faults ON refresh_families")
        chains = tuple(holder.chain for holder in holders[16:26])
        once = made.database.ask(
            "SELECT count(*), count(DISTINCT target) FROM audit_events WHERE event = 'session:ended' AND target IN "
            "(SELECT session_id::text FROM refresh_families WHERE replace(id::text, '-', '') = ANY(%s))",
            list(chains),
        )
        found.tell(ends_in_the_log=f"{once[0][0]} for 10 revocations")
        found.require(once[0] == (10, 10), f"the log has {once[0]} ends of 10")
        clients.settle(holders[1:6] + holders[26:])
        clients.settle_ended([locked, *holders[6:26]])
    run.verdict(found)
    return found


def _trigger(made: Deployment, fails: str) -> None:
    made.database.ask(
        f"""
        CREATE SEQUENCE IF NOT EXISTS faults_calls;
        CREATE OR REPLACE FUNCTION faults() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF NEW.ended_at IS NOT NULL AND OLD.ended_at IS NULL AND {fails} THEN
            RAISE EXCEPTION 'restart transaction' USING ERRCODE = '40001';
          END IF;
          RETURN NEW;
        END $$;
        DROP TRIGGER IF EXISTS faults ON refresh_families;
        CREATE TRIGGER faults BEFORE UPDATE ON refresh_families FOR EACH ROW EXECUTE FUNCTION faults();
        """
    )


def _deadlock(made: Deployment, clients: Clients, holder: Holder) -> int:
    """A revocation takes the family and then the session; this one goes the other way round."""
    with made.database.connect() as session:
        session.autocommit = False
        with session.cursor() as cursor, ThreadPoolExecutor(1) as pool:
            cursor.execute("SET deadlock_timeout = '5s'")  # so that the server's is the one that is ended
            cursor.execute("SELECT 1 FROM sessions WHERE id = %s FOR UPDATE", (holder.session,))
            ending = pool.submit(clients.end, holder)
            wait_until(
                lambda: made.database.ask("SELECT 1 FROM pg_locks WHERE NOT granted"), "the revocation waits"
            )
            before = _deadlocks(made)
            with contextlib.suppress(psycopg2.errors.DeadlockDetected):
                cursor.execute("UPDATE refresh_families SET scope = scope WHERE id = %s", (holder.chain,))
            session.rollback()
            ending.result()
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: _deadlocks(made) > before, "it is counted", patience=3)
    return _deadlocks(made) - before


def _deadlocks(made: Deployment) -> int:
    return int(made.database.ask("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'")[0][0])


@experiment(
    "E25",
    "the disk of the append-only file full under load, then PostgreSQL's, 6 s each",
    "no half issue: what was answered is stored; 503; back within 10 s",
)
def disk_full(run: Run) -> Finding:
    found = Finding()
    with small_disk(run.folder / "redis-disk", 64) as disk:
        redis = RedisProcess(disk)
        redis.start()
        try:
            with run.deployed(redis_url=redis.url) as made, run.loaded(made, holders=12) as load:
                _fill_and_free(run, load, disk, "append-only file", found, redis.answers)
        finally:
            redis.stop()
    run.verdict(found)
    run.history.ops.clear()
    with small_disk(run.folder / "postgres-disk", 160) as disk:
        postgres = PostgresProcess(disk, run.folder / "postgres-template")
        postgres.start()
        try:
            with run.deployed(database_url=postgres.url) as made, run.loaded(made, holders=12) as load:

                def alive() -> bool:
                    # Without room for its log it may end itself; whoever runs it starts it again.
                    if postgres.process is not None and postgres.process.poll() is not None:
                        (postgres.data / "postmaster.pid").unlink(missing_ok=True)
                        postgres.start(wait=False)
                    return postgres.answers()

                _fill_and_free(run, load, disk, "PostgreSQL", found, alive)
                orphans = postgres.ask(
                    "SELECT count(*) FROM refresh_families f "
                    "LEFT JOIN sessions s ON s.id = f.session_id WHERE s.id IS NULL"
                )
                found.tell(orphans=orphans[0][0])
                found.require(orphans[0][0] == 0, "families without a session")
        finally:
            postgres.stop()
    run.verdict(found)
    return found


def _fill_and_free(run: Run, load: Load, disk: Path, name: str, found: Finding, alive: Callable[[], bool]) -> None:
    time.sleep(2)
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(b"x" * 65536)
            file.flush()
    for size in (4096, 512, 64):
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(b"x" * size)
    started = now()
    time.sleep(6)
    filler.unlink()
    wait_until(alive, f"{name} answers again")
    healed = now()
    time.sleep(8)
    recovery, sign_in = run.recovery(healed, now()), run.first_sign_in(healed)
    refused = run.refused_share(started, healed)
    found.figures[name] = f"refused {refused}, recovery {recovery:.1f} s, first sign-in {sign_in:.1f} s"
    found.require(max(recovery, sign_in) <= RECOVERY_SECONDS, f"{name}: not back within 10 s")
    load.settle()


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own. Raises NotHere where this user may not mount one."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", folder]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NotHere("there is no `mount`") from None
    if done.returncode != 0:
        raise NotHere("only root may mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)
