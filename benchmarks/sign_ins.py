"""How long a refused sign-in takes, by what was wrong with it: nobody shall learn from a clock who has an account
(OWASP ASVS 6.3.8).
"""

import math
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection
from json import dumps
from typing import Any

PASSWORD = "correct horse 7 battery"
WRONG = "wrong horse 7 battery"
PEOPLE = 4


class SignIns:
    """`kinds`: what is wrong → the login and the password of one attempt."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._chance = random.Random(1)
        pick: Callable[[str], str] = lambda kind: f"{kind}{self._chance.randrange(PEOPLE)}"  # noqa: E731
        self.kinds: dict[str, Callable[[], tuple[str, str]]] = {
            "unknown": lambda: (pick("nobody"), WRONG),
            "wrong": lambda: (pick("person"), WRONG),
            "disabled": lambda: (pick("former"), WRONG),
        }

    def prepare(self, disable: Callable[[str], object]) -> None:
        """People who are there, and people who were."""
        for kind in ("person", "former"):
            for number in range(PEOPLE):
                name = f"{kind}{number}"
                body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
                assert self.ask("/auth/register", body) == 201
                if kind == "former":
                    disable(name)

    def ask(self, path: str, body: dict[str, str]) -> int:
        self._connection.request("POST", path, dumps(body), {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        response.read()
        return response.status

    def times(self, count: int) -> dict[str, list[float]]:
        """Seconds of `count` attempts of each kind, after some that don't count. One of each in random order, and
        so on, so that a machine that slows down meanwhile does so for all of them."""
        order = [kind for _ in range(count) for kind in self._chance.sample(list(self.kinds), len(self.kinds))]
        found: dict[str, list[float]] = {kind: [] for kind in self.kinds}
        for number, kind in enumerate([*order[:20], *order]):
            login, password = self.kinds[kind]()
            started = time.perf_counter()
            status = self.ask("/auth/login", {"login": login, "password": password})
            if number >= 20:
                found[kind].append(time.perf_counter() - started)
            assert status == 401
        return found


def disabler(command: Sequence[str], environment: Mapping[str, str]) -> Callable[[str], object]:
    """By the command line, with the settings of the server."""

    def disable(name: str) -> None:
        subprocess.run([*command, "user", "disable", name], env=environment, check=True, capture_output=True)

    return disable


def figures(times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians in ms; how far the largest is from the smallest, in percent; and by a Mann-Whitney test how probable
    such a difference from "wrong" is where there is none."""
    medians = {kind: 1000 * statistics.median(each) for kind, each in times.items()}
    kinds = {
        kind: {"median_ms": medians[kind], "p": mann_whitney(each, times["wrong"])} for kind, each in times.items()
    }
    return {"kinds": kinds, "apart_percent": 100 * (max(medians.values()) / min(medians.values()) - 1)}


def mann_whitney(left: Sequence[float], right: Sequence[float]) -> float:
    """Two-sided p by the normal approximation, which is good from 20 values on; ties share their rank."""
    ordered = sorted([*left, *right])
    ranks: dict[float, float] = {}
    first = 0
    while first < len(ordered):
        last = first
        while last + 1 < len(ordered) and ordered[last + 1] == ordered[first]:
            last += 1
        ranks[ordered[first]] = (first + last) / 2 + 1
        first = last + 1
    n, m = len(left), len(right)
    u = sum(ranks[each] for each in left) - n * (n + 1) / 2
    spread = math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc(abs(u - n * m / 2) / spread / math.sqrt(2))
