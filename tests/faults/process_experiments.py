"""E26, E29, E47: processes killed at any moment, a long run with old data, and everything at once."""

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.faults.deployment import Deployment, readiness, spawn, workers_of
from tests.faults.history import Kind, Outcome
from tests.faults.load import Load
from tests.faults.plan import Finding, Run, experiment, now
from tests.faults.proxy import ALL_ARRIVE, Odds
from tests.faults.stores import wait_until
from tests.live_server import LiveServer

KILLS = 100


@experiment(
    "E26",
    "kill -9 of one process (worker, parent of a node, Redis, PostgreSQL) at any moment of a refresh, 100 times",
    "nobody who retries is signed out, no double spend; only 503 and lost answers",
)
def kills(run: Run) -> Finding:
    found = Finding()
    killed = Counter[str]()
    with run.deployed() as made, run.loaded(made, holders=16, period=0.05, churn=1.0, verify=0.05) as load:
        started = now()
        plan = ["worker"] * 44 + ["parent"] * 6 + ["Redis"] * 25 + ["PostgreSQL"] * 25
        run.chance.shuffle(plan)
        for what in plan:
            time.sleep(run.chance.uniform(0.1, 0.5))
            _kill(run, made, what)
            killed[what] += 1
            _again(load, made)
        ended = now()
        time.sleep(2)
        load.settle()
    unknown = sum(op.outcome is Outcome.UNKNOWN for op in run.asked(started, ended))
    run.verdict(found)
    found.tell(killed=", ".join(f"{what} {count}" for what, count in sorted(killed.items())))
    found.tell(unknown_outcomes=f"{unknown} of {len(run.asked(started, ended))}")
    return found


def _kill(run: Run, made: Deployment, what: str) -> None:
    node = run.chance.choice(made.nodes)
    match what:
        case "worker":  # the parent starts another one
            os.kill(run.chance.choice(_workers(node)), signal.SIGKILL)
        case "parent":
            assert node.process is not None
            node.process.kill()
            node.process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(node.process.pid, signal.SIGKILL)
            spawn(node)
        case "Redis":
            made.store.kill()
            made.store.start()
        case _:
            made.database.kill()
            made.database.start()


def _workers(node: LiveServer) -> list[int]:
    wait_until(lambda: workers_of(node), "the node has workers", patience=60)
    return workers_of(node)


def _again(load: Load, made: Deployment) -> None:
    """Until refreshes work again: what comes after a longer outage than the grace is another matter."""
    history, since = load.clients.history, now()

    def works() -> bool:
        recent = history.ops[-100:]
        return any(
            op.kind is Kind.REFRESH and op.honest and op.outcome is Outcome.OK and op.started > since
            for op in recent
        )

    try:
        wait_until(works, "refreshes work again", patience=60)
    except TimeoutError as error:
        told = Counter(f"{op.kind} {op.status or 'no answer'}" for op in history.ops[-200:])
        states = [readiness(node) for node in made.nodes]
        raise TimeoutError(f"{error}: {dict(told)}, {states}\n{made.logs()[-4000:]}") from error


@experiment(
    "E29",
    "24 h of expired rows (31,000, made) purged while serving; then 70 s of load (plan: 24 h) with memory, files "
    "and rows watched",
    "expired rows are gone, in batches; memory, open files, rows and Redis flat",
)
def soak(run: Run) -> Finding:
    found = Finding()
    settings = {"access_token_ttl": "30", "audit_access": "denied"}
    with run.deployed(**settings) as made, run.loaded(made, holders=12, churn=0, ended=2) as load:
        _make_old(made, load)
        before = _expired(made)
        found.require(sum(before.values()) >= 30_000, f"only {before} were made")
        started = now()
        gone = wait_until(lambda: not sum(_expired(made).values()), "expired rows are gone", patience=150)
        p50, p99 = run.latency(since=started, until=now())
        found.tell(
            purged=f"{sum(before.values())} rows within {gone:.0f} s", refresh_p50_p99_ms=f"{p50:.0f}, {p99:.0f}"
        )
        time.sleep(10)
        samples = []
        until = now() + 60
        while now() < until:
            samples.append(_sizes(made))
            time.sleep(4)
        load.settle()
    run.verdict(found)
    third = len(samples) // 3
    for name in samples[0]:
        first = sorted(sample[name] for sample in samples[:third])[third // 2]
        last = sorted(sample[name] for sample in samples[-third:])[third // 2]
        found.figures[name] = f"{first:.0f} → {last:.0f}"
        # A tenth, and what fits into a page or a pool, is no slope.
        slack = {"RSS MiB": 12, "files": 16, "rows": 0, "Redis KiB": 300, "Redis keys": 8}[name]
        found.require(last <= first * 1.02 + slack, f"{name} grows: {first:.0f} → {last:.0f}")
    return found


OLD = 6_000
EXPIRING = {
    "sessions": "expires_at < now()",
    "refresh_families": "expires_at < now()",
    "authorization_codes": "expires_at < now() - interval '1 day'",
    "device_codes": "expires_at < now() - interval '1 hour'",
    "used_assertions": "expires_at < now()",
    "feed": "expires_at < extract(epoch from now()) * 1000",
}


def _make_old(made: Deployment, load: Load) -> None:
    """Rows as they would be there after a day without a purge: expired over the day before yesterday."""
    like = load.holders[0]
    old = "now() - interval '25 hours' - random() * interval '24 hours'"
    many = f"generate_series(1, {OLD})"
    made.database.ask(
        f"""
        INSERT INTO sessions SELECT (jsonb_populate_record(s, jsonb_build_object(
          'id', gen_random_uuid(), 'expires_at', {old}))).* FROM sessions s, {many} WHERE s.id = '{like.session}';
        INSERT INTO refresh_families SELECT (jsonb_populate_record(f, jsonb_build_object(
          'id', gen_random_uuid(), 'session_id', s.id, 'expires_at', s.expires_at))).*
          FROM refresh_families f, sessions s WHERE f.id = '{like.chain}' AND s.expires_at < now();
        INSERT INTO authorization_codes (digest, family_id, session_id, user_id, client_id, scope, audience,
          authenticated_at, amr, created_at, expires_at)
          SELECT sha256(gen_random_uuid()::text::bytea), gen_random_uuid(), '{like.session}', '{like.user}',
          'first-party', 'openid', '[]', {old}, '[]', {old}, {old} FROM {many};
        INSERT INTO used_assertions (digest, expires_at)
          SELECT sha256(gen_random_uuid()::text::bytea), {old} FROM {many};
        INSERT INTO feed (id, kind, subject, at, created_at, expires_at)
          SELECT gen_random_uuid(), 'family', gen_random_uuid()::text, at, at, at + 420000
          FROM (SELECT (extract(epoch FROM {old}) * 1000)::bigint AS at FROM {many}) AS times;
        INSERT INTO device_codes SELECT (jsonb_populate_record(NULL::device_codes, jsonb_build_object(
          'digest', '\\x' || encode(sha256(gen_random_uuid()::text::bytea), 'hex'),
          'user_code', substr(md5(random()::text || n), 1, 12), 'client_id', 'first-party', 'scope', 'openid',
          'audience', '[]'::jsonb, 'status', 'pending', 'interval', 5, 'family_id', gen_random_uuid(),
          'created_at', {old}, 'expires_at', {old}))).* FROM generate_series(1, {OLD // 6}) AS n;
        """
    )


def _expired(made: Deployment) -> dict[str, int]:
    return {
        table: int(made.database.ask(f"SELECT count(*) FROM {table} WHERE {is_old}")[0][0])
        for table, is_old in EXPIRING.items()
    }


def _sizes(made: Deployment) -> dict[str, float]:
    pids = [pid for node in made.nodes for pid in workers_of(node)]
    resident = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * os.sysconf(
        "SC_PAGE_SIZE"
    )
    rows = sum(int(made.database.ask(f"SELECT count(*) FROM {table}")[0][0]) for table in EXPIRING)
    with made.store.client() as admin:
        memory, keys = int(admin.info("memory")["used_memory_dataset"]), int(admin.dbsize())
    return {
        "RSS MiB": resident / 2**20,
        "files": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),  # noqa: PTH208
        "rows": rows,
        "Redis KiB": memory / 1024,
        "Redis keys": keys,
    }


@experiment(
    "E47",
    "for 90 s a fault of E09-E19 after another, chosen by the seed, sometimes two at a time; the checker decides",
    "the rules of the checker",
)
def everything(run: Run) -> Finding:
    found = Finding()
    done = Counter[str]()
    losses: list[float] = []
    with run.deployed(proxied=run.seed) as made, run.loaded(made, holders=20, churn=0.4) as load:
        faults: dict[str, Callable[[], None]] = {
            "Redis killed": lambda: _restart(made.store.kill, made.store.start, run.chance.uniform(0, 3)),
            "Redis emptied": lambda: _empty(made, losses),
            "Redis stopped": lambda: _stop(made, run.chance.uniform(0.5, 4)),
            "Redis slow": lambda: _slow(made, run.chance.uniform(1, 3)),
            "Redis cut off": made.proxy.cut,
            "rough network": lambda: _rough(made, run.chance.uniform(2, 4)),
            "PostgreSQL killed": lambda: _restart(
                made.database.kill, made.database.start, run.chance.uniform(0, 3)
            ),
            "worker killed": lambda: _kill(run, made, "worker"),
        }
        ends = now() + 90
        while now() < ends:
            chosen = run.chance.sample(sorted(faults), run.chance.choice([1, 1, 2]))
            # What touches the same store would hide the other.
            if len(chosen) == 2 and {each.split()[0] for each in chosen} == {"Redis"}:
                chosen = chosen[:1]
            threads = [threading.Thread(target=faults[name]) for name in chosen]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            done.update(chosen)
            time.sleep(run.chance.uniform(0.5, 2.5))
        wait_until(lambda: readiness(made.first)[0] == 200, "the node is ready again", patience=60)
        load.settle()
    # An emptied Redis loses its last moments; so may one that was killed.
    run.verdict(found, losses=losses)
    found.tell(faults=", ".join(f"{name} {count}" for name, count in sorted(done.items())))
    found.tell(operations=len(run.history.ops))
    return found


def _restart(end: Callable[[], object], start: Callable[[], object], seconds: float) -> None:
    end()
    time.sleep(seconds)
    start()


def _empty(made: Deployment, losses: list[float]) -> None:
    with made.store.client(10) as admin:
        admin.flushall()
    losses.append(now())


def _stop(made: Deployment, seconds: float) -> None:
    made.store.send(signal.SIGSTOP)
    time.sleep(seconds)
    made.store.send(signal.SIGCONT)


def _slow(made: Deployment, seconds: float) -> None:
    made.proxy.latency = 0.2
    time.sleep(seconds)
    made.proxy.latency = 0.0


def _rough(made: Deployment, seconds: float) -> None:
    made.proxy.answers = Odds(late=0.02, lost=0.01, cut=0.02, torn=0.02)
    time.sleep(seconds)
    made.proxy.answers = ALL_ARRIVE
