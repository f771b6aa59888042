"""E09-E11, E16-E18: one Redis that is killed, rolled back, emptied, slow, full, or no Redis at all."""

import signal
import time
from collections.abc import Callable

import httpx

from tests.faults.deployment import Deployment, readiness
from tests.faults.history import Broken
from tests.faults.plan import GRACE, Finding, Run, experiment, now
from tests.faults.proxy import ALL_ARRIVE, Odds
from tests.faults.stores import RedisProcess, wait_until

RECOVERY_SECONDS = 5.0


@experiment(
    "E09",
    "kill -9 Redis under load, start it again after 10 s",
    "no double spend, nothing resurrected, only 503; back within 5 s",
)
def killed(run: Run) -> Finding:
    found = Finding()
    with run.deployed() as made, run.loaded(made) as load:
        time.sleep(3)
        made.store.kill()
        died = now()
        time.sleep(10)
        made.store.start()
        healed = now()
        time.sleep(8)
        ended = now()
        load.settle()
    recovery = run.recovery(healed, ended)
    run.verdict(found)
    p50, p99 = run.latency(until=died)
    found.tell(recovery_s=recovery, refused_while_it_was_down=run.refused_share(died, healed))
    found.tell(refresh_p50_p99_ms=f"{p50:.0f}, {p99:.0f}")
    found.require(recovery <= RECOVERY_SECONDS, f"recovery took {recovery:.1f} s")
    return found


@experiment(
    "E10",
    "Redis that saves by RDB alone: a dump, 5 s of load, kill -9, started with the old dump",
    "what was rotated or revoked after the dump stays dead",
)
def rolled_back(run: Run) -> Finding:
    found = Finding()
    with run.deployed(redis_options={"appendonly": "no"}) as made, run.loaded(made) as load:
        resting = load.clients.holders(20, people=2)
        time.sleep(2)
        with made.store.client() as admin:
            admin.save()
        for holder in resting:  # consumed after the dump, and safe in SQL before the end
            load.clients.refresh(holder)
        ended = load.clients.holders(10, people=2)
        for holder in ended + resting[:5]:
            load.clients.end(holder)
        time.sleep(5)
        made.store.kill()
        lost = now()
        time.sleep(1)
        made.store.start()
        healed = now()
        time.sleep(6)
        until = now()
        load.settle()
        load.clients.settle_ended(ended + resting[:5])
        for holder in resting[5:]:
            old, _ = holder.spent[0]
            wait_until(lambda: now() > healed + GRACE + 2, "the grace, which began anew, is over")
            load.clients.refresh(holder, old, honest=False)
    run.verdict(found, losses=[lost])
    recovery = run.recovery(healed, until)
    found.tell(recovery_s=recovery)
    found.require(recovery <= RECOVERY_SECONDS, f"recovery took {recovery:.1f} s")
    return found


@experiment(
    "E11",
    "FLUSHALL under load, 4 times; and amid guesses at a password",
    "as E10; nobody is let in meanwhile",
)
def emptied(run: Run) -> Finding:
    found = Finding()
    with run.deployed() as made, run.loaded(made) as load:
        losses = []
        for _ in range(4):
            time.sleep(2)
            with made.store.client() as admin:
                admin.flushall()
            losses.append(now())
        time.sleep(3)
        until = now()
        load.settle()
    run.verdict(found, losses=losses)
    found.tell(refused=run.refused_share(losses[0], until), recovery_s=run.recovery(losses[-1], until))
    with run.deployed(nodes=1, rate_limits="on") as made:
        clients = run.clients(made)
        (name,) = clients.people(1)
        tries = []
        for _ in range(2):
            count = 0
            while (status := _guess(made, name)) == 401:
                count += 1
            found.require(status == 429, f"a guess was answered {status}")
            tries.append(count)
            with made.store.client() as admin:
                admin.flushall()
    found.tell(guesses_until_429=f"{tries[0]}, and {tries[1]} more after FLUSHALL")
    return found


def _guess(made: Deployment, name: str) -> int:
    body = {"login": name, "password": "a wrong guess"}
    return httpx.post(f"{made.first.url}/auth/login", json=body, trust_env=False, timeout=30).status_code


ROUGH = Odds(late=0.004, lost=0.002, cut=0.006, torn=0.004)
ROUGH_REQUESTS = Odds(late=0.002, cut=0.004)


@experiment(
    "E16",
    "answers of Redis and PostgreSQL late (past the time-out), lost, cut, torn, at random, for 60 s (plan: 10 min)",
    "no answer of one user's goes to another; only 503",
)
def rough_network(run: Run) -> Finding:
    found = Finding()
    with run.deployed(proxied=run.seed) as made:
        proxies = [proxy for proxy in (made.redis_proxy, made.postgres_proxy) if proxy]
        with run.loaded(made, holders=24, people=12, verify=1.0) as load:
            for proxy in proxies:
                proxy.requests, proxy.answers = ROUGH_REQUESTS, ROUGH
            started = now()
            time.sleep(60)
            ended = now()
            for proxy in proxies:
                proxy.requests = proxy.answers = ALL_ARRIVE
            load.settle()
        faults = sum(sum(proxy.faults.values()) for proxy in proxies)
    verdict = run.verdict(found)
    asked = run.asked(started, ended)
    p50, p99 = run.latency(since=started, until=ended)
    found.tell(cross_answers=f"{verdict.count(Broken.CROSS)} of {len(asked)}", faults=faults)
    found.tell(refused=run.refused_share(started, ended), refresh_p50_p99_ms=f"{p50:.0f}, {p99:.0f}")
    found.require(faults > 100, f"only {faults} faults were injected")
    return found


@experiment(
    "E17",
    "Redis stopped (SIGSTOP) for 5 s; 200 ms slower for 5 s; full (noeviction) 4 s; evicting (allkeys-lru) 6 s",
    "waits are bounded, 503, eviction un-revokes nothing; back within 5 s each time",
)
def slow_and_full(run: Run) -> Finding:
    found = Finding()
    with run.deployed(proxied=run.seed) as made, run.loaded(made) as load:
        time.sleep(2)

        def phase(name: str, begin: Callable[[], object], end: Callable[[], object], seconds: float) -> None:
            begin()
            started = now()
            time.sleep(seconds)
            end()
            healed = now()
            time.sleep(5)
            recovery = run.recovery(healed, now())
            waits = [op.ended - op.started for op in run.asked(started, healed)]
            found.figures[name] = (
                f"longest wait {max(waits, default=0):.1f} s, refused {run.refused_share(started, healed)}, "
                f"recovery {recovery:.1f} s"
            )
            found.require(recovery <= RECOVERY_SECONDS, f"{name}: recovery took {recovery:.1f} s")
            found.require(max(waits, default=0) <= 3, f"{name}: somebody waited {max(waits, default=0):.1f} s")

        phase("stopped", lambda: made.store.send(signal.SIGSTOP), lambda: made.store.send(signal.SIGCONT), 5)
        phase("slower", lambda: _slow(made, 0.2), lambda: _slow(made, 0.0), 5)
        with made.store.client() as admin:

            def full(policy: str) -> None:
                used = int(admin.info("memory")["used_memory"])
                admin.config_set("maxmemory-policy", policy)
                # Evicting, it loses about a tenth of what it holds and goes on; refusing, it has no room left.
                admin.config_set("maxmemory", used if policy == "noeviction" else used - 200_000)

            def roomy() -> None:
                admin.config_set("maxmemory", 0)
                admin.config_set("maxmemory-policy", "noeviction")

            phase("full", lambda: full("noeviction"), roomy, 4)
            evicted = int(admin.info("stats")["evicted_keys"])
            phase("evicting", lambda: full("allkeys-lru"), roomy, 6)
            evicted = int(admin.info("stats")["evicted_keys"]) - evicted
        lost = now()
        found.tell(evicted_keys=evicted)
        load.settle()
    # While it evicts, any moment is one at which writes are lost.
    run.verdict(found, losses=[lost - second for second in range(12)])
    found.require(evicted > 0, "nothing was evicted")
    return found


def _slow(made: Deployment, seconds: float) -> None:
    made.proxy.latency = seconds


@experiment(
    "E18",
    "behind the address of Redis: one with another password, a read-only replica, a program that talks nonsense",
    "503, /readyz and `doctor` say redis; back within 5 s",
)
def not_our_redis(run: Run) -> Finding:
    found = Finding()
    with run.deployed(proxied=run.seed) as made, run.loaded(made, holders=12) as load:
        time.sleep(2)
        ours = made.proxy.target
        locked = RedisProcess(made.folder / "locked", options={"requirepass": "something else"})
        replica = RedisProcess(made.folder / "replica", options={"replicaof": f"127.0.0.1 {made.store.port}"})
        try:
            locked.start(wait=False)
            replica.start()
            wait_until(lambda: _follows(replica), "the replica follows")
            for name, target, garbage in (
                ("another password", locked.port, None),
                ("read-only replica", replica.port, None),
                ("nonsense", 0, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            ):
                made.proxy.target = ("127.0.0.1", target)
                made.proxy.garbage = garbage
                made.proxy.cut()
                started = now()
                time.sleep(2.5)
                status, missing = readiness(made.first)
                found.require((status, missing) == (503, ["redis"]), f"{name}: /readyz says {status} {missing}")
                refused = run.refused_share(started + 0.5, now())
                made.proxy.target, made.proxy.garbage = ours, None
                made.proxy.cut()
                healed = now()
                time.sleep(4)
                recovery = run.recovery(healed, now())
                found.figures[name] = f"refused {refused}, recovery {recovery:.1f} s"
                found.require(recovery <= RECOVERY_SECONDS, f"{name}: recovery took {recovery:.1f} s")
            load.settle()
            made.proxy.garbage = b"nonsense\r\n"
            made.proxy.cut()
            said = made.first.run("doctor", status=None)
            found.require("redis" in said.lower(), "`doctor` says nothing of Redis")
        finally:
            locked.stop()
            replica.stop()
    run.verdict(found)
    return found


def _follows(replica: RedisProcess) -> bool:
    with replica.client() as client:
        return client.info("replication")["master_link_status"] == "up"
