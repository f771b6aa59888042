"""Ours and the servers of others in turns: same stores, same load, same signature measured beside them."""

import tempfile
from collections import defaultdict
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.deployments import Deployment, serving, stores
from benchmarks.measuring import Figures, Measured, Sample, measure
from benchmarks.peers.servers import CONNECTIONS, KINDS, running
from benchmarks.plans import Plan, Plans
from benchmarks.rounds import Cell, Ended, Selection, print_progress

PATHS: Final = ("client_credentials", "refresh", "introspection", "JWKS")
OURS: Final = "tokenserver"


class Contestant(Measured, Protocol):
    name: str

    def memory_mb(self) -> float: ...
    def plan(self, path: str) -> Plan: ...
    def renew(self) -> None: ...
    def heard(self, path: str, outcome: dict[str, Any]) -> None: ...


class Ours:
    """This server, in the shape of the others."""

    name = OURS

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._plans = Plans(deployment, ("RS256",), CONNECTIONS)
        self.port = deployment.port
        self.cpu_ms = deployment.cpu_ms
        self.store_cpu_ms = deployment.store_cpu_ms
        self.settle = deployment.settle
        self.renew = self._plans.renew

    def memory_mb(self) -> float:
        return self._deployment.memory_mb()[0]

    def plan(self, path: str) -> Plan:
        return self._plans.plan(path, "RS256", CONNECTIONS)

    def heard(self, path: str, outcome: dict[str, Any]) -> None:
        self._plans.heard(path, "RS256", outcome)


def compare(selection: Selection, installed: Path) -> dict[str, Any]:
    """`installed`: the environment of the others."""
    samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ts-peers-")))
        shared = stack.enter_context(stores())
        ours = Ours(stack.enter_context(serving("postgresql", workers=selection.workers, shared=shared)))
        contestants: list[Contestant] = [ours]
        for number, kind in enumerate(KINDS, 1):
            peer = running(kind, installed, shared, number, folder / str(number), selection.workers)
            contestants.append(stack.enter_context(peer))
        with suppress(Ended):
            for number in range(-1, selection.rounds):
                for each in contestants:
                    _round(number, each, selection.seconds, samples)
        memory = {each.name: each.memory_mb() for each in contestants}
    return {
        "cells": [
            {"server": server, "path": path} | Figures.of(found).as_json()
            for (server, path), found in samples.items()
        ],
        "memory": memory,
        "r_ms": sorted(sample.r_ms for found in samples.values() for sample in found),
    }


def _round(number: int, server: Contestant, seconds: float, samples: dict[tuple[str, str], list[Sample]]) -> None:
    server.renew()
    for path in PATHS:
        sample, outcome = measure(server, server.plan(path), seconds, path, warm=number >= 0)
        server.heard(path, outcome)
        if number >= 0:  # the one before is for compilers at run time, connections and caches
            samples[server.name, path].append(sample)
        print_progress(number, Cell(server.name[:20], "", path, CONNECTIONS), sample)
