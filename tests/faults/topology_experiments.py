"""E13-E15: Sentinel and Cluster that fail over, split and move slots."""

import time

from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.faults.deployment import Deployment, spawn
from tests.faults.history import Broken, Outcome, check
from tests.faults.load import Load
from tests.faults.plan import GRACE, Finding, Run, experiment, now
from tests.faults.stores import wait_until
from tests.redis_servers import Cluster, Sentinel

RECOVERY_SECONDS = 15.0
# docs/revocation.md: each process compares with SQL once a second.
STALENESS = 2.0


@experiment(
    "E13",
    "Sentinel: replica paused and cut off for 3 s of load, kill -9 of the master, the stale replica promoted",
    "what was rotated or revoked stays dead, nobody is signed out; back within 15 s",
)
def stale_replica(run: Run) -> Finding:
    found = Finding()
    with Sentinel() as sentinel, run.deployed(redis_url=sentinel.url()) as made, run.loaded(made) as load:
        resting = load.clients.holders(20, people=2)
        time.sleep(2)
        master, replica = sentinel.master, sentinel.replica
        replica.pause()
        # What was sent to it before is read when it goes on; what comes now is not sent to it.
        master.client().execute_command("CLIENT KILL TYPE REPLICA")
        cut = now()
        for holder in resting:
            load.clients.refresh(holder)
        ended = load.clients.holders(10, people=2)
        for holder in ended + resting[:5]:
            load.clients.end(holder)
        time.sleep(max(0.0, cut + 3 - now()))
        lost_writes = int(master.client().info("replication")["master_repl_offset"])
        master.kill()
        lost = now()
        replica.resume()
        promoted = sentinel.promoted(master)
        healed = now()
        lost_writes -= int(promoted.client().info("replication")["master_repl_offset"])
        time.sleep(10)
        until = now()
        load.settle()
        load.clients.settle_ended(ended + resting[:5])
        for holder in resting[5:]:
            old, _ = holder.spent[0]
            wait_until(lambda: now() > healed + GRACE + 2, "the grace, which began anew, is over")
            load.clients.refresh(holder, old, honest=False)
    run.verdict(found, losses=[lost])
    recovery = run.recovery(lost, until)
    found.tell(bytes_of_the_master_lost=max(0, lost_writes), recovery_s_since_the_kill=recovery)
    found.require(recovery <= RECOVERY_SECONDS, f"recovery took {recovery:.1f} s")
    return found


@experiment(
    "E14",
    "Sentinel: the master cut off from Sentinels and replica, not from the nodes, for 30 s, by taking "
    "their ACL users away; node 2 restarted meanwhile. Once with min-replicas-to-write 1, once with 0",
    "with it writes are refused; without it a revocation is seen on the other side within 2 s; no fork",
)
def split_brain(run: Run) -> Finding:
    found = Finding()
    for minimum in (1, 0):
        run.history.ops.clear()
        lag = ("min-replicas-max-lag 2", "repl-ping-replica-period 1")
        with (
            Sentinel(f"min-replicas-to-write {minimum}", *lag, acl=True) as sentinel,
            run.deployed(redis_url=sentinel.url()) as made,
            run.loaded(made, holders=12) as load,
        ):
            time.sleep(2)
            master = sentinel.master
            admin = master.client()
            for user in ("sentinel", "replica"):
                admin.execute_command("ACL SETUSER", user, "off")
                admin.execute_command("CLIENT KILL USER", user)
            cut = now()
            sentinel.promoted(master)
            before = int(admin.info("replication")["master_repl_offset"])
            made.nodes[1].stop()
            spawn(made.nodes[1])
            # With it the new master refuses too: it has no replica yet.
            stale, revoked = (0.0, 0) if minimum else _across(load, made)
            time.sleep(max(0.0, cut + 30 - now()))
            written = int(admin.info("replication")["master_repl_offset"]) - before
            for user in ("sentinel", "replica"):
                admin.execute_command("ACL SETUSER", user, "on")
            healed = now()
            wait_until(
                lambda master=master: _role(master) == "slave", "the old master follows the new one", patience=40
            )
            time.sleep(6)
            until = now()
            load.settle()
        name = f"min-replicas {minimum}"
        verdict = check(
            run.history.ops, grace=GRACE, losses=[healed, until], staleness=STALENESS, loss_seconds=until - cut
        )
        found.figures[name] = (
            f"old master wrote {written} bytes after the failover, "
            + (f"a revocation was seen within {stale:.1f} s ({revoked} tried), " if revoked else "")
            + f"double spends {verdict.count(Broken.DOUBLE_SPEND, Broken.TWO_LEAVES)}, "
            + f"resurrected {verdict.count(Broken.RESURRECTED)}, signed out {verdict.count(Broken.LOCK_OUT)}, "
            + f"refused {run.refused_share(cut, healed)}"
        )
        if minimum:
            found.require(written < 10_000, "the old master took writes")
        found.broken += [f"{name}: {each.rule}: {each.family}: {each.story}" for each in verdict.violations[:5]]
        recovery = run.recovery(healed, until)
        found.require(recovery <= RECOVERY_SECONDS, f"{name}: recovery took {recovery:.1f} s")
    return found


def _across(load: Load, made: Deployment) -> tuple[float, int]:
    """Revokes on the node of the new master, and asks the other one until it refuses; the longest wait."""
    longest, tried = 0.0, 0
    for holder in load.clients.holders(4, people=1):
        op = load.clients.end(holder)
        tried += 1
        asked = load.clients.introspect(holder, node=0)
        while asked.outcome is Outcome.OK:
            longest = max(longest, asked.started - op.ended)
            asked = load.clients.introspect(holder, node=0)
    return longest, tried


def _role(server: object) -> str:
    try:
        return str(server.client().role()[0])  # type: ignore[attr-defined]
    except RedisError:
        return ""


@experiment(
    "E15",
    "Cluster of 3 + 3: kill -9 of a master under load; then 4 slots moved while they are used",
    "MOVED, ASK, TRYAGAIN, CROSSSLOT never reach a client; back within 15 s",
)
def cluster(run: Run) -> Finding:
    found = Finding()
    with Cluster() as redis, run.deployed(redis_url=redis.url()) as made, run.loaded(made) as load:
        time.sleep(2)
        master = redis.master_of("ts:{0}:state")
        master.kill()
        lost = now()
        wait_until(lambda: redis.master_of("ts:{0}:state") is not master, "a replica took over")
        time.sleep(10)
        recovery = run.recovery(lost, now())
        master.start()
        redis.wait_whole()
        moving = now()
        moved = 0
        for bucket in range(4):
            slot = key_slot(f"ts:{{{bucket}}}:state".encode())
            source = redis.master_of(slot)
            target = next(server for server in redis.masters() if server is not source)
            moved += redis.move_slot(slot, source, target, midway=lambda: time.sleep(0.5))
            time.sleep(1)
        time.sleep(3)
        until = now()
        load.settle()
        logs = made.logs()
    run.verdict(found, losses=[lost])
    leaked = [
        word for word in ("MOVED", "ASK ", "CROSSSLOT", "TRYAGAIN") if f"{word}" in logs and "Traceback" in logs
    ]
    found.require(not leaked, f"the log has tracebacks with {leaked}")
    found.tell(recovery_s_since_the_kill=recovery, keys_moved=moved)
    found.tell(refused_while_slots_moved=run.refused_share(moving, until))
    found.require(recovery <= RECOVERY_SECONDS, f"recovery took {recovery:.1f} s")
    found.require(run.recovery(moving, until) < until - moving, "refused until the end of the moves")
    return found
