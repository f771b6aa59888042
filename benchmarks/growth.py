"""How cost grows: the same paths with few and with many users, families, clients and roles, measured in turns on
deployments that share PostgreSQL and Redis.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final
from uuid import UUID

from benchmarks.deployments import ADMIN, Deployment, serving, stores
from benchmarks.fill import FAMILY, Filler, numbered
from benchmarks.measuring import Figures, Sample, measure, send
from benchmarks.plans import FORM, PASSWORD, Plan, Plans, basic, request_text
from benchmarks.rounds import Cell, Ended, Selection, print_progress
from tokenserver.app import create_app, rooms_of
from tokenserver.config import Settings
from tokenserver.tokens.checkpoints import LEASE_KEY, LEASE_MS
from tokenserver.tokens.refresh_family import Family

CLIENTS: Final = (10, 100_000)
ROLES: Final = (1, 100, 9_000)
# Behind all others in lists, which would show their roles.
HOLDERS: Final = {count: f"zoe{count}" for count in ROLES}
CONNECTIONS: Final = 32
# Of a path whose requests are each for somebody else: so many at most in a sample.
EACH: Final = 2_000
CARRIED: Final = 50_000
ANOTHER_FAMILY: Final = "refresh, each another family"
ANOTHER_CLIENT: Final = "client_credentials, each another client"
SAME_PATHS: Final = ("client_credentials", "refresh", "password", "/users/me")


@dataclass
class Site:
    """A deployment with so many users, each with a live family, and so many clients. `issue`: a refresh token;
    `find`: a family; `secret`: of the ring, for what Redis holds of it.

    `left`: numbers of families whose first token wasn't used yet.
    """

    people: int
    clients: int
    deployment: Deployment
    plans: Plans
    issue: Callable[[UUID, int], str]
    find: Callable[[UUID], Family | None]
    secret: bytes
    left: Iterator[int]
    family_bytes: float | None = None

    @classmethod
    def at(cls, deployment: Deployment, people: int, clients: int) -> "Site":
        plans = Plans(deployment, ("RS256",), CONNECTIONS)
        rooms = rooms_of(create_app(Settings.load(deployment.environment)))
        secret = rooms.keys.secrets("refresh_token")[0]
        left = iter(range(1, people + 1))
        refresh_tokens = rooms.refresh_tokens
        return cls(people, clients, deployment, plans, refresh_tokens.issue, refresh_tokens.find, secret, left)

    @property
    def has_roles(self) -> bool:
        return self.clients == max(CLIENTS)

    def fill(self) -> None:
        """Then starts the server again, whose processes nobody told."""
        filler = self.filler()
        if self.has_roles:
            for holder in HOLDERS.values():
                self.plans.register(holder)
            filler.roles(max(ROLES), {holder: count for count, holder in HOLDERS.items()})
        if self.people > 1:
            before = self._redis_bytes()
            family_id = filler.ask("SELECT id FROM refresh_families WHERE scope = 'posts:create' LIMIT 1")
            family = self.find(UUID(str(family_id)))
            assert family is not None
            filler.people("bench", family, self.people, self.secret)
            self.family_bytes = (self._redis_bytes() - before) / self.people
        filler.clients(self.plans.kits["RS256"].services[0][0], self.clients)
        self.deployment.stop()
        self.deployment.start()

    def filler(self) -> Filler:
        assert self.deployment.stores is not None
        return Filler(self.deployment.stores.sql.url(self.deployment.database), self.deployment.redis)

    def _redis_bytes(self) -> int:
        return int(self.deployment.redis.info("memory")["used_memory"])

    def plan(self, path: str) -> Plan:
        return self.plans.plan(path, "RS256", CONNECTIONS)

    def each_another_family(self) -> Plan:
        numbers = list(islice(self.left, min(EACH, self.people // 10)))
        body = "grant_type=refresh_token&refresh_token="
        tokens = [self.issue(numbered(FAMILY, number), 1) for number in numbers]
        app = FORM | self.plans.kits["RS256"].app
        return _queue([request_text("POST", "/oauth/token", app, body + token) for token in tokens])

    def each_another_client(self, round_number: int) -> Plan:
        secret = self.plans.kits["RS256"].services[0][1]
        first = 1 + (round_number % 20) * EACH
        numbers = range(first, first + EACH)
        service = [FORM | basic(f"client{number}", secret) for number in numbers]
        return _queue([request_text("POST", "/oauth/token", s, "grant_type=client_credentials") for s in service])


def _queue(requests: list[str]) -> Plan:
    return {"kind": "queue", "requests": requests, "connections": CONNECTIONS}


def _cells(site: Site, round_number: int) -> Iterator[tuple[str, int, str, Plan]]:
    """Subject, size, path, plan."""
    people, clients, roles = "users, each with a live family", "clients", "roles of the user"
    for path in SAME_PATHS:
        yield people, site.people, path, site.plan(path)
    for path in ("/users?limit=20", "/users?q=bench"):
        yield people, site.people, path, site.plans.get(path, *ADMIN)
    if site.has_roles:
        for count, holder in HOLDERS.items():
            for path in ("/users/me/sessions", "/posts", "/users/me"):
                yield roles, count, path, site.plans.get(path, holder, PASSWORD)
    if site.people > 1:
        yield people, site.people, ANOTHER_FAMILY, site.each_another_family()
    yield clients, site.clients, "client_credentials", site.plan("client_credentials")
    if site.clients == max(CLIENTS):
        yield clients, site.clients, ANOTHER_CLIENT, site.each_another_client(round_number)


def measured(selection: Selection) -> dict[str, Any]:
    samples: dict[tuple[str, int, str], list[Sample]] = defaultdict(list)
    with ExitStack() as stack:
        shared = stack.enter_context(stores())
        sites = []
        for number, people in enumerate(selection.people, 1):
            clients = CLIENTS[people == max(selection.people)]
            deployment = serving("postgresql", workers=selection.workers, shared=shared, number=number)
            sites.append(Site.at(stack.enter_context(deployment), people, clients))
            sites[-1].fill()
        with suppress(Ended):
            for number in range(selection.rounds):
                for site in sites:
                    _round(number, site, selection.seconds, samples)
        carried = _carried(sites[-1])
        families = {site.people: site.family_bytes for site in sites if site.family_bytes is not None}
        sql = {site.people: _sql_bytes(site) for site in sites if site.people > 1}
    return {
        "cells": [
            {"subject": subject, "size": size, "path": path} | Figures.of(found).as_json()
            for (subject, size, path), found in samples.items()
        ],
        "family_bytes": families,
        "sql_bytes": sql,
        "carried": carried,
        "r_ms": sorted(sample.r_ms for found in samples.values() for sample in found),
    }


def _round(number: int, site: Site, seconds: float, samples: dict[tuple[str, int, str], list[Sample]]) -> None:
    site.plans.renew()
    for subject, size, path, plan in _cells(site, number):
        sample, outcome = measure(site.deployment, plan, seconds, path, warm=number > 0)
        site.plans.heard(path, "RS256", outcome)
        samples[subject, size, path].append(sample)
        print_progress(number, Cell(f"{size:,}", "", path, CONNECTIONS), sample)


def _carried(site: Site) -> dict[str, float]:
    """How many refreshes a second are carried from Redis into SQL, one generation and one event each, and what that
    costs: it is done by one process for all nodes."""
    deployment = site.deployment
    deployment.settle()
    with _nobody_carries(deployment):
        send(deployment.port, site.plan("client_credentials") | {"most": 20}, 5)
        [(_, item)] = deployment.redis.xrange("ts:{0}:events", count=1)
        last = site.people
        site.filler().backlog(last - CARRIED + 1, last, item["e"], time.time_ns() // 1_000_000)
    cpu, stores_cpu, started = deployment.cpu_ms(), deployment.store_cpu_ms(), time.perf_counter()
    if not deployment.settle(120):
        raise SystemExit("the backlog was not carried")
    seconds, stores_now = time.perf_counter() - started, deployment.store_cpu_ms()
    return {
        "per_s": CARRIED / seconds,
        "cpu_ms": (deployment.cpu_ms() - cpu) / CARRIED,
        "redis_ms": (stores_now[0] - stores_cpu[0]) / CARRIED,
        "sql_ms": (stores_now[1] - stores_cpu[1]) / CARRIED,
    }


@contextmanager
def _nobody_carries(deployment: Deployment) -> Iterator[None]:
    """As if another process held the lease that it takes."""
    over = threading.Event()

    def hold() -> None:
        while not over.wait(LEASE_MS / 5000):
            until = time.time_ns() // 1_000_000 + LEASE_MS
            deployment.redis.set(LEASE_KEY, f"{0:016} {until}", px=LEASE_MS)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        time.sleep(2)  # until who carries has found out
        yield
    finally:
        over.set()
        holder.join()
        deployment.redis.delete(LEASE_KEY)


def _sql_bytes(site: Site) -> dict[str, float]:
    """Of a user with a role, and of a session with its family: tables and their indexes, divided."""
    filler = site.filler()

    def bytes_of(*tables: str) -> float:
        return sum(filler.ask(f"SELECT pg_total_relation_size('{table}')") for table in tables) / site.people

    return {"user": bytes_of("users", "role_assignments"), "session": bytes_of("sessions", "refresh_families")}
