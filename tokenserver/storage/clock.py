"""This node's clock, held against those of SQL and of Redis.

Tokens, cutoffs and expiries of all nodes are compared with each other. A node whose clock is wrong would issue
tokens that no revocation reaches, and delete what others still need; so it decides nothing until its clock is
right.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tokenserver.errors import ClockWrong, StoreUnavailable
from tokenserver.signals import metrics

if TYPE_CHECKING:
    from tokenserver.storage.redis import RedisStore
    from tokenserver.storage.sql import Database

logger = logging.getLogger("tokenserver.clock")

# Clocks of two nodes may differ by so much (s); each of them by half of it from the stores'.
NODE_SKEW_SECONDS: Final = 10
LIMIT: Final = NODE_SKEW_SECONDS / 2
WARNING: Final = 1.0
COMPARE_SECONDS: Final = 5.0
REFERENCES: Final = {"Redis": "redis", "the database": "sql"}
NOT_COMPARED: Final = "not compared with any other clock yet"


class Clock:
    """`references`: name of another clock → what it says now, in s since 1970.

    One that agrees is enough: if it is a store's clock that is wrong, every node would be. Between comparisons a
    step of this clock shows in its distance from the monotonic one, which costs nothing to look at.
    """

    def __init__(self, references: dict[str, Callable[[], float]]) -> None:
        self._references = references
        self._fault = ""
        self._offset: float | None = None
        self._warned: set[str] = set()

    @classmethod
    def of(cls, database: "Database", store: "RedisStore") -> "Clock":
        references = {"Redis": lambda: redis_time(store)}
        if database.engine.dialect.name != "sqlite":  # which has this machine's own
            references["the database"] = lambda: sql_time(database)
        return cls(references)

    def require(self) -> None:
        """Raises ClockWrong; never before the first `compare`, or `watch`."""
        if self._fault:
            raise ClockWrong(self._fault)
        if self._offset is not None and abs(_offset() - self._offset) > LIMIT:
            raise ClockWrong("it was stepped and is not compared with the other clocks yet")

    def compare(self) -> None:
        """While no other clock can be asked, what was found the last time stands."""
        offset, found = _offset(), {}
        for name, ask in self._references.items():
            try:
                found[name] = skew(ask)
            except StoreUnavailable:
                continue
            metrics.clock_skew.set(abs(found[name]), REFERENCES.get(name, name))
        if not found:
            return
        off = {name: seconds for name, seconds in found.items() if abs(seconds) > LIMIT}
        fault = "" if len(off) < len(found) else "it is " + ", ".join(map(_told, off.items()))
        was_wrong = self._fault not in {"", NOT_COMPARED}
        if bool(fault) != was_wrong:
            logger.log(
                logging.ERROR if fault else logging.INFO,
                "the clock of this node is %s",
                f"wrong, and nothing is decided by it: {fault}" if fault else "right",
            )
        doubtful = {name: seconds for name, seconds in found.items() if abs(seconds) > WARNING}
        for name in doubtful.keys() - self._warned:
            if not fault:
                logger.warning("the clock of this node is %s", _told((name, doubtful[name])))
        self._warned = set(doubtful)
        self._offset, self._fault = offset, fault

    def watch(self) -> None:
        """Compare now, and from now on every few seconds. Trusts nothing before the first comparison."""
        self._fault = NOT_COMPARED
        self.compare()
        never = threading.Event()

        def repeat() -> None:
            while not never.wait(COMPARE_SECONDS if self._offset is not None else 1.0):
                try:
                    self.compare()
                except Exception:
                    logger.exception("comparing clocks failed")

        threading.Thread(target=repeat, name="clock", daemon=True).start()


def skew(ask: Callable[[], float]) -> float:
    """By how many seconds, at least, this clock is ahead of another; negative when it is behind.

    The question takes a while, so a small difference can't be told from none.
    """
    before = time.time()
    there = ask()
    after = time.time()
    return before - there if there < before else min(0.0, after - there)


def sql_time(database: "Database") -> float:
    query = "SELECT extract(epoch FROM clock_timestamp())"
    return float(database.read(lambda tx: tx.connection().exec_driver_sql(query).scalar_one()))


def redis_time(store: "RedisStore") -> float:
    _, (seconds, microseconds) = store.ask_unverified(store.any_bucket(), lambda client: client.time())
    return float(seconds) + float(microseconds) / 1e6


def _offset() -> float:
    return time.time() - time.monotonic()


def _told(found: tuple[str, float]) -> str:
    name, seconds = found
    return f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} that of {name}"
