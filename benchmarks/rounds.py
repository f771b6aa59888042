"""Cells in turns: each round measures every cell once, so that a machine that is slow for a while is so for all."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from benchmarks import sign_ins, verifier
from benchmarks.deployments import COMMAND, Deployment, serving
from benchmarks.measuring import Figures, Sample, measure
from benchmarks.plans import MOST_CONNECTIONS, NEEDS, PATHS, Plans

MAIN: Final = 32  # connections


class Ended(Exception):
    """Somebody asks for the end: what was measured so far is shown."""


class Cell(NamedTuple):
    stores: str
    alg: str
    path: str
    connections: int


@dataclass(frozen=True)
class Selection:
    """What is measured. `seconds`: of each sample; `rounds`: samples of each cell; `starts`: of each server;
    `people`: how many, in growth."""

    stores: tuple[str, ...] = ("embedded", "postgresql")
    algs: tuple[str, ...] = ("RS256", "ES256")
    paths: tuple[str, ...] = tuple(PATHS)
    connections: tuple[int, ...] = (1, 32, 256)
    rounds: int = 3
    seconds: float = 1.2
    sign_ins: int = 200
    starts: int = 2
    people: tuple[int, ...] = (1, 1_000, 1_000_000)
    workers: int = 2

    def cells(self, stores: str, number: int) -> list[Cell]:
        """Of one deployment in this round, in the order in which they are measured. Where there are several numbers
        of connections, those beside the main one have one sample."""
        return [
            Cell(stores, alg, path, connections)
            for connections in self.connections
            if number == 0 or connections == MAIN or MAIN not in self.connections
            for alg in self.algs
            for path, signs in PATHS.items()
            if path in self.paths
            and (signs or alg == self.algs[0])
            and connections <= MOST_CONNECTIONS.get(path, connections)
        ]


class Bench:
    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._samples: dict[Cell, list[Sample]] = defaultdict(list)

    def run(self) -> dict[str, Any]:
        """What the report shows."""
        selection = self._selection
        with ExitStack() as stack:
            deployments = {
                name: stack.enter_context(serving(name, workers=selection.workers, starts=selection.starts))
                for name in selection.stores
            }
            at_rest = {name: each.memory_mb() for name, each in deployments.items()}
            most = max(selection.connections)
            plans = {name: Plans(each, selection.algs, most) for name, each in deployments.items()}
            is_whole = False
            with suppress(Ended):
                for number in range(selection.rounds):
                    for name, deployment in deployments.items():
                        self._round(number, deployment, plans[name])
                is_whole = True
            first = selection.stores[0]
            verified = verifier.figures(plans[first], deployments[first].url)
            memory = [_memory(name, at_rest[name], each.memory_mb()) for name, each in deployments.items()]
            starts = [_starts(name, each.starts) for name, each in deployments.items()]
        refused = None
        with suppress(Ended):
            refused = self._sign_ins() if is_whole else None
        return {
            "cells": [cell._asdict() | Figures.of(found).as_json() for cell, found in self._samples.items()],
            "r_ms": sorted(sample.r_ms for found in self._samples.values() for sample in found),
            "verifier": verified,
            "memory": memory,
            "starts": starts,
            "sign_ins": refused,
        }

    def _round(self, number: int, deployment: Deployment, plans: Plans) -> None:
        plans.renew()
        for cell in self._selection.cells(deployment.name, number):
            need = NEEDS.get(cell.path)
            if need and need not in self._selection.paths:
                self._take(cell._replace(path=need), deployment, plans, warm=number > 0)
            sample = self._take(cell, deployment, plans, warm=number > 0)
            self._samples[cell].append(sample)
            print_progress(number, cell, sample)

    def _take(self, cell: Cell, deployment: Deployment, plans: Plans, *, warm: bool) -> Sample:
        plan = plans.plan(cell.path, cell.alg, cell.connections)
        sample, outcome = measure(deployment, plan, self._selection.seconds, cell.path, warm=warm)
        plans.heard(cell.path, cell.alg, outcome)
        return sample

    def _sign_ins(self) -> dict[str, Any] | None:
        """None: not asked for."""
        selection = self._selection
        return refused_sign_ins(selection.sign_ins, selection.workers) if selection.sign_ins else None


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
    return {"stores": stores, "first_s": seconds[0], "second_s": seconds[1] if len(seconds) > 1 else None}
