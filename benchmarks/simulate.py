"""How large a deployment gets before something saturates, by arithmetic, and a simulation that checks it.

`python -m benchmarks.simulate` takes what `make bench` measured from `docs/performance/`, says which of the
resources gives out first and at how many refreshes a second, sends simulated refreshes through their queues just
below and just above that, and writes both into `docs/sizing.md`.
"""

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from benchmarks import tables
from benchmarks.about import ROOT
from benchmarks.report import read, replaced
from tokenserver.storage.redis_location import CLUSTER_BUCKETS as BUCKETS

DOCUMENT: Final = ROOT / "docs" / "sizing.md"
CARRIER: Final = "the process that carries into SQL"
UNCACHED: Final = "refresh, each another family"


@dataclass(frozen=True)
class Resource:
    """`units` of `servers` each work on `ms` for a refresh. `share`: the largest part of all refreshes that comes
    to one unit. `behind`: it works after the answer."""

    name: str
    units: int
    servers: int
    ms: float
    share: float
    behind: bool = False

    @property
    def limit(self) -> float:
        """Refreshes a second at which its busiest unit has no time left."""
        return self.servers * 1000 / self.ms / self.share


@dataclass(frozen=True)
class Deployment:
    """What isn't measured is assumed: how many of what, and `cockroach`, the CPU time of CockroachDB for a
    statement as a multiple of PostgreSQL's, and `replicas`, which each write is done on.

    `interval`: seconds between two refreshes of a session; `ceiling`: how busy a resource may be.
    """

    nodes: int = 100
    cores: int = 2
    redis_masters: int = 16
    redis_gb: float = 16
    sql_nodes: int = 12
    sql_cores: int = 8
    cockroach: float = 4
    replicas: int = 3
    interval: float = 300
    ceiling: float = 0.7


@dataclass(frozen=True)
class Costs:
    """Measured here, per refresh: CPU ms of a node, of Redis, of SQL; what carrying it from Redis into SQL takes of
    the one process that does it, and of SQL. Bytes of a family in Redis, of a session with its family in SQL."""

    node_ms: float
    redis_ms: float
    sql_read_ms: float
    carry_ms: float
    sql_write_ms: float
    family_bytes: float
    session_bytes: float

    @classmethod
    def measured(cls, growth: dict[str, Any]) -> "Costs":
        """Of a refresh that no process has anything cached for, as behind a balancer with many nodes."""
        cell = max((each for each in growth["cells"] if each["path"] == UNCACHED), key=lambda each: each["size"])
        largest = cell["size"]
        return cls(
            node_ms=cell["cpu_ms"],
            redis_ms=cell["redis_ms"],
            sql_read_ms=max(0.01, cell["sql_ms"] - growth["carried"]["sql_ms"]),
            carry_ms=1000 / growth["carried"]["per_s"],
            sql_write_ms=growth["carried"]["sql_ms"],
            family_bytes=growth["family_bytes"][str(largest)],
            session_bytes=growth["sql_bytes"][str(largest)]["session"],
        )


def resources(costs: Costs, deployment: Deployment) -> list[Resource]:
    d = deployment
    # The busiest master has the most buckets; families are spread evenly over buckets.
    largest = -(-BUCKETS // d.redis_masters) / BUCKETS
    sql_ms = d.cockroach * (costs.sql_read_ms + d.replicas * costs.sql_write_ms)
    return [
        Resource("nodes", d.nodes, d.cores, costs.node_ms, 1 / d.nodes),
        Resource("Redis masters", d.redis_masters, 1, costs.redis_ms, largest),
        Resource(CARRIER, 1, 1, costs.carry_ms, 1, behind=True),
        Resource("CockroachDB", d.sql_nodes, d.sql_cores, sql_ms, 1 / d.sql_nodes, behind=True),
    ]


def sessions_at(rate: float, deployment: Deployment) -> float:
    """Sessions that are used all the time and refresh as soon as their access token expires."""
    return rate * deployment.interval


def sessions_in_redis(costs: Costs, deployment: Deployment) -> float:
    """By memory, half of which is left for all else: the append-only file's rewriting, the streams, the feed."""
    return deployment.redis_masters * deployment.redis_gb * 1e9 / 2 / costs.family_bytes


@dataclass(frozen=True)
class Outcome:
    """Of a simulation. `waiting`: what a resource hasn't done by the end, in the order of resources."""

    rate: float
    p50_ms: float
    p99_ms: float
    busy: tuple[float, ...]
    waiting: tuple[int, ...]


def simulate(stages: Sequence[Resource], rate: float, seconds: float, seed: int = 1) -> Outcome:
    """Refreshes that come at random (Poisson), each through all stages in turn, first come first served. Which unit
    it comes to is chance, and for a stage with a `share` above the even one the first unit gets that."""
    chance = random.Random(seed)
    free = [[[0.0] * stage.servers for _ in range(stage.units)] for stage in stages]
    busy, waiting = [0.0] * len(stages), [0] * len(stages)
    answered: list[float] = []
    now = 0.0
    while (now := now + chance.expovariate(rate)) < seconds:
        at = now
        for number, stage in enumerate(stages):
            ends = _serve(free[number][_unit(stage, chance)], at, stage.ms / 1000)
            if not stage.behind:
                at = ends
            busy[number] += stage.ms / 1000
            waiting[number] += ends > seconds
        answered.append((at - now) * 1000)
    answered.sort()
    return Outcome(
        rate,
        answered[len(answered) // 2],
        answered[int(len(answered) * 0.99)],
        tuple(spent / seconds / stage.units / stage.servers for spent, stage in zip(busy, stages, strict=True)),
        tuple(waiting),
    )


def _serve(servers: list[float], at: float, seconds: float) -> float:
    """When it ends, at the server that is free first."""
    ends = max(at, servers[0]) + seconds
    heapq.heapreplace(servers, ends)
    return ends


def _unit(stage: Resource, chance: random.Random) -> int:
    if stage.share <= 1 / stage.units:
        return chance.randrange(stage.units)
    return 0 if chance.random() < stage.share else chance.randrange(1, stage.units)


def checked(stages: Sequence[Resource], seconds: float = 3.0) -> tuple[Resource, Outcome, Outcome]:
    """What gives out first, and simulations with 10 % less and 10 % more than that."""
    first = min(stages, key=lambda stage: stage.limit)
    below, above = (simulate(stages, first.limit * part, seconds) for part in (0.9, 1.1))
    return first, below, above


def report(costs: Costs, deployment: Deployment) -> str:
    stages = resources(costs, deployment)
    lifted = [
        replace(stage, units=BUCKETS, share=1 / BUCKETS) if stage.name == CARRIER else stage for stage in stages
    ]
    rows = [
        [
            stage.name,
            f"{stage.units} of {stage.servers}",
            f"{stage.ms:.3f}",
            f"{stage.limit:,.0f}",
            f"{stage.limit * deployment.ceiling:,.0f}",
            f"{sessions_at(stage.limit * deployment.ceiling, deployment) / 1e6:,.1f} million",
        ]
        for stage in sorted(stages, key=lambda stage: stage.limit)
    ]
    head = ("resource", "units", "ms per refresh", "refreshes/s at most", "with room", "sessions")
    parts = [
        tables.table(head, rows),
        "",
        f"Sessions that fit into the memory of Redis: {sessions_in_redis(costs, deployment) / 1e6:,.0f} million.",
        "",
        "Simulated:",
        "",
    ]
    simulated = []
    for name, each in (("as it is", stages), (f"carried by {BUCKETS} processes, one for each bucket", lifted)):
        first, below, above = checked(each, 1.0)
        number = each.index(first)
        simulated += [
            [
                f"{name}: {first.name}",
                f"{outcome.rate:,.0f}",
                f"{outcome.busy[number]:.0%}",
                f"{outcome.p50_ms:.1f}; {outcome.p99_ms:.1f}",
                f"{outcome.waiting[number]:,}",
                f"{sum(outcome.waiting) - outcome.waiting[number]:,}",
            ]
            for outcome in (below, above)
        ]
    head = (
        "what gives out first",
        "refreshes/s",
        "busy",
        "answered p50; p99 ms",
        "waiting there",
        "waiting elsewhere",
    )
    return "\n".join([*parts, tables.table(head, simulated)])


def main() -> None:
    text = report(Costs.measured(read("growth")), Deployment())
    print(text)
    DOCUMENT.write_text(replaced(DOCUMENT.read_text("utf-8"), "model", text), "utf-8")


if __name__ == "__main__":
    main()
