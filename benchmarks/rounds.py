"""Cells in turns: each round measures every cell once, so that a machine that is slow for a while is so for all."""

import fcntl
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import sign_ins, verifier
from benchmarks.deployments import COMMAND, Deployment, serving
from benchmarks.measuring import Figures, Sample, measure
from benchmarks.plans import NEEDS, PATHS, Plans


class Cell(NamedTuple):
    stores: str
    alg: str
    path: str
    connections: int


@dataclass(frozen=True)
class Selection:
    """What is measured. `seconds`: of each sample; `rounds`: samples of each cell. `lock`: a file that is held
    locked for a minute or two at a time, where others measure on the same machine."""

    stores: tuple[str, ...] = ("embedded", "postgresql")
    algs: tuple[str, ...] = ("RS256", "ES256")
    paths: tuple[str, ...] = tuple(PATHS)
    connections: tuple[int, ...] = (1, 32, 256)
    rounds: int = 3
    seconds: float = 1.2
    sign_ins: int = 200
    workers: int = 2
    lock: Path | None = None

    def cells(self, stores: str) -> list[Cell]:
        """Of one deployment, in the order in which they are measured."""
        return [
            Cell(stores, alg, path, connections)
            for connections in self.connections
            for alg in self.algs
            for path, signs in PATHS.items()
            if path in self.paths and (signs or alg == self.algs[0])
        ]

    @contextmanager
    def alone(self) -> Iterator[None]:
        if self.lock is None:
            yield
            return
        with self.lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class Bench:
    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._samples: dict[Cell, list[Sample]] = defaultdict(list)

    def run(self) -> dict[str, Any]:
        """What the report shows."""
        selection = self._selection
        with ExitStack() as stack:
            with selection.alone():
                deployments = {
                    name: stack.enter_context(serving(name, workers=selection.workers, starts=2))
                    for name in selection.stores
                }
                at_rest = {name: each.memory_mb() for name, each in deployments.items()}
                plans = {
                    name: Plans(each, selection.algs, max(selection.connections))
                    for name, each in deployments.items()
                }
            for number in range(selection.rounds):
                for name, deployment in deployments.items():
                    with selection.alone():
                        self._round(number, deployment, plans[name])
            with selection.alone():
                verified = verifier.figures(plans[selection.stores[0]], deployments[selection.stores[0]].url)
            memory = [_memory(name, at_rest[name], each.memory_mb()) for name, each in deployments.items()]
            starts = [_starts(name, each.starts) for name, each in deployments.items()]
        return {
            "cells": [cell._asdict() | Figures.of(found).as_json() for cell, found in self._samples.items()],
            "r_ms": sorted(sample.r_ms for found in self._samples.values() for sample in found),
            "verifier": verified,
            "memory": memory,
            "starts": starts,
            "sign_ins": self._sign_ins(),
        }

    def _round(self, number: int, deployment: Deployment, plans: Plans) -> None:
        for cell in self._selection.cells(deployment.name):
            need = NEEDS.get(cell.path)
            if need and need not in self._selection.paths:
                self._take(cell._replace(path=need), deployment, plans)
            sample = self._take(cell, deployment, plans)
            self._samples[cell].append(sample)
            print_progress(number, cell, sample)

    def _take(self, cell: Cell, deployment: Deployment, plans: Plans) -> Sample:
        plan = plans.plan(cell.path, cell.alg, cell.connections)
        sample, outcome = measure(deployment, plan, self._selection.seconds, cell.path)
        plans.heard(cell.path, cell.alg, outcome)
        return sample

    def _sign_ins(self) -> dict[str, Any] | None:
        """None: not asked for."""
        if not self._selection.sign_ins:
            return None
        with self._selection.alone():
            return refused_sign_ins(self._selection.sign_ins, self._selection.workers)


def refused_sign_ins(count: int, workers: int) -> dict[str, Any]:
    """Of a server of its own, without limits: they would soon refuse to look at the passwords."""
    with serving("embedded", workers=workers, rate_limits="off") as deployment:
        asked = sign_ins.SignIns(deployment.port)
        asked.prepare(sign_ins.disabler([str(COMMAND)], deployment.environment))
        return sign_ins.figures(asked.times(count))


def print_progress(number: int, cell: Cell, sample: Sample) -> None:
    what = f"round {number + 1}  {cell.stores:<11}{cell.alg:<7}{cell.path:<20}{cell.connections:>4}"
    what += f"{sample.requests_per_s:>9.0f}/s{sample.cpu_ms:>9.3f} ms{sample.ratio:>8.2f} R"
    print(what, file=sys.stderr, flush=True)


def _memory(stores: str, at_rest: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    return {
        "stores": stores,
        "at_rest_mb": at_rest[0],
        "at_rest_with_stores_mb": at_rest[1],
        "after_mb": after[0],
        "after_with_stores_mb": after[1],
    }


def _starts(stores: str, seconds: Sequence[float]) -> dict[str, Any]:
    return {"stores": stores, "first_s": seconds[0], "second_s": seconds[-1]}
