"""One cell: a plan sent to a server for a moment, with its CPU time and the raw signature measured beside it."""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.signature import raw_signature_ms

LOAD: Final = Path(__file__).with_name("load.py")
MOST: Final = 1_000_000
WARM_UP: Final = 32
EXPECTED: Final = {"authorization": ("302", "303")}


class Measured(Protocol):
    """What is behind the port."""

    port: int

    def cpu_ms(self) -> float: ...
    def store_cpu_ms(self) -> tuple[float, float]: ...
    def settle(self) -> bool: ...


@dataclass(frozen=True)
class Sample:
    """`requests_per_s`, `cpu_ms`: of good answers. `refused`: 429 and 503, asked again later. `failed`: all other
    answers that weren't good, and connections that were closed. `r_ms`: R, the mean of just before and after.
    `redis_ms`, `sql_ms`: what the stores spent for a request."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    r_ms: float
    refused: int
    failed: int
    redis_ms: float
    sql_ms: float

    @property
    def ratio(self) -> float:
        return self.cpu_ms / self.r_ms


@dataclass(frozen=True)
class Figures:
    """Medians of the samples of a cell; counts are sums. `ratio`: CPU per request as a multiple of R.
    `least_cpu_ms`: of the sample that was disturbed least."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    least_cpu_ms: float
    ratio: float
    spread: float
    refused: int
    failed: int
    samples: int
    redis_ms: float
    sql_ms: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Figures":
        def median(name: str) -> float:
            return statistics.median(getattr(sample, name) for sample in samples)

        ratios = [sample.ratio for sample in samples]
        return cls(
            requests_per_s=median("requests_per_s"),
            p50_ms=median("p50_ms"),
            p99_ms=median("p99_ms"),
            cpu_ms=median("cpu_ms"),
            least_cpu_ms=min(sample.cpu_ms for sample in samples),
            ratio=median("ratio"),
            spread=max(ratios) - min(ratios),
            refused=sum(sample.refused for sample in samples),
            failed=sum(sample.failed for sample in samples),
            samples=len(samples),
            redis_ms=median("redis_ms"),
            sql_ms=median("sql_ms"),
        )

    def as_json(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def send(port: int, plan: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What `load` tells. It runs in a process of its own that knows nothing of this one."""
    given = json.dumps({"port": port, "seconds": seconds, "most": MOST} | plan)
    done = subprocess.run(
        [sys.executable, "-I", "-S", LOAD], input=given, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the load generator failed: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


def measure(
    server: Measured, plan: dict[str, Any], seconds: float, path: str, *, warm: bool = True
) -> tuple[Sample, dict[str, Any]]:
    """The sample, and what `load` told. What requests leave to be done later is waited for, and counts. Not `warm`:
    some requests are sent before that don't count, where that uses nothing up."""
    if not warm and plan["kind"] == "fixed":
        send(server.port, plan | {"most": WARM_UP}, seconds)
        server.settle()
    r_before = raw_signature_ms()
    before, stores_before = server.cpu_ms(), server.store_cpu_ms()
    outcome = send(server.port, plan, seconds)
    server.settle()
    spent = server.cpu_ms() - before
    redis_ms, sql_ms = (now - then for now, then in zip(server.store_cpu_ms(), stores_before, strict=True))
    statuses = outcome["statuses"]
    good = sum(statuses.get(status, 0) for status in EXPECTED.get(path, ("200",)))
    refused = statuses.get("429", 0) + statuses.get("503", 0)
    if not good:
        raise SystemExit(f"{path}: no good answer: {statuses or outcome}")
    sample = Sample(
        requests_per_s=good / outcome["elapsed_s"],
        p50_ms=outcome["p50_ms"],
        p99_ms=outcome["p99_ms"],
        cpu_ms=spent / good,
        r_ms=(r_before + raw_signature_ms()) / 2,
        refused=refused,
        failed=sum(statuses.values()) - good - refused + outcome["closed"],
        redis_ms=redis_ms / good,
        sql_ms=sql_ms / good,
    )
    return sample, outcome
