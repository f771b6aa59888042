"""E12: every worker restarted, and clocks that are an hour off."""

import time

from tests.faults.deployment import readiness, spawn
from tests.faults.history import Outcome
from tests.faults.plan import GRACE, Finding, NotHere, Run, experiment, now
from tests.wrong_clocks import faked


def off_by(seconds: int) -> dict[str, str]:
    """The environment of a program whose clock is off by so much. Raises NotHere without libfaketime."""
    try:
        # Waits are measured by the monotonic clock, which no administrator sets.
        return {**faked(seconds), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    except FileNotFoundError as reason:
        raise NotHere(str(reason)) from None


@experiment(
    "E12",
    "all processes of the nodes restarted; node 2 with a clock 1 h fast for 10 s, then 1 h slow for 10 s",
    "rotated and revoked tokens stay dead, nobody is signed out; a node with a wrong clock decides nothing",
)
def clocks(run: Run) -> Finding:
    found = Finding()
    with run.deployed() as made, run.loaded(made, holders=12) as load:
        rotated = load.clients.holders(10, people=2)
        for holder in rotated:
            load.clients.refresh(holder)
            load.clients.refresh(holder)
        time.sleep(1.5)  # safe in SQL
        for node in made.nodes:
            node.stop()
            node.start()
        restarted = now()
        notes = []
        for off in (3600, -3600):
            made.nodes[1].kill()
            spawn(made.nodes[1], **off_by(off))
            time.sleep(10)
            status, missing = readiness(made.nodes[1])
            found.require(missing == ["clock"], f"/readyz of a node {off} s off says {status} {missing}")
            notes.append(f"{off / 3600:+.0f} h: {status} {' '.join(missing) or 'ready'}")
        made.nodes[1].kill()
        made.nodes[1].start()
        for holder in rotated:  # the grace is over, by every clock
            assert now() > restarted + GRACE
            old = holder.spent[-1][0]
            op = load.clients.until_known(
                lambda holder=holder, old=old: load.clients.refresh(holder, old, honest=False)
            )
            found.require(op.outcome is Outcome.FAIL, f"a consumed token was answered {op.status}")
        load.settle()
    run.verdict(found)
    found.tell(readyz_of_the_node=", ".join(notes))
    return found
