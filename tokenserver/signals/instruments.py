"""Counters, gauges and histograms of prometheus_client, made when they are first used, their children held.

A child is what `labels()` of prometheus_client would look up again each time. Where the value lies in a file that
the processes of a node share (`signals.shared`), adding to it takes some µs, and a request adds to six of them. So
`count` and `observe` only take note, and `Registry.settle` adds up: half a second later, or before somebody reads.
"""

import logging
import math
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from itertools import product
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

logger = logging.getLogger("tokenserver.metrics")

# Seconds. From a rotation on a machine of its own to a store that is about to be given up.
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PREFIX: Final = "tokenserver_"
# So many notes wait at the most, some 100 KB.
MOST_NOTES: Final = 1000


class Registry:
    """All instruments of this process. `reserve`: called before a value is added; OSError when there is no room."""

    def __init__(self) -> None:
        self.instruments: list[Instrument] = []
        self.lock = threading.Lock()
        # Instrument, values of its labels, the index of a bucket (-1: it has none), and what is added. A deque's
        # append and popleft are atomic.
        self._notes: deque[tuple[Instrument, tuple[str, ...], int, float]] = deque()
        self._settling = threading.Lock()
        self._begin(lambda: None)

    def _begin(self, reserve: Callable[[], None]) -> None:
        self.reserve = reserve
        self._made: CollectorRegistry | None = None
        self._notes.clear()

    def begin(self, reserve: Callable[[], None]) -> None:
        """Anew: with the values of this process, wherever prometheus_client puts them from now on."""
        self._begin(reserve)
        for instrument in self.instruments:
            instrument.forget()
        for instrument in self.instruments:
            instrument.announce()

    def note(self, instrument: "Instrument", values: tuple[str, ...], bucket: int, amount: float) -> None:
        self._notes.append((instrument, values, bucket, amount))
        if len(self._notes) > MOST_NOTES:
            self.settle()

    def settle(self) -> None:
        """What was noted is in the values when this returns."""
        with self._settling:
            sums: dict[tuple[Instrument, tuple[str, ...]], dict[int, list[float]]] = {}
            while True:
                try:
                    instrument, values, bucket, amount = self._notes.popleft()
                except IndexError:
                    break
                sum_of_bucket = sums.setdefault((instrument, values), {}).setdefault(bucket, [0, 0.0])
                sum_of_bucket[0] += 1
                sum_of_bucket[1] += amount
            for (instrument, values), buckets in sums.items():
                instrument.add(values, buckets)

    def of_process(self) -> "CollectorRegistry":
        if self._made is None:
            from prometheus_client import CollectorRegistry

            self._made = CollectorRegistry(auto_describe=False)
        return self._made


REGISTRY: Final = Registry()


class Instrument:
    """`labels`: their names, in the order of the values that each call names. `known`: the values that each label
    is known to take, which are there from the start, so that a first event shows as a rise."""

    kind: str
    options: dict[str, Any]

    def __init__(self, name: str, text: str, *labels: str, known: tuple[Iterable[str], ...] = ()) -> None:
        self.name = PREFIX + name
        self.text = text
        self.labels = labels
        self.known = list(product(*known)) if known or not labels else []
        self._children: dict[tuple[str, ...], Any] = {}
        self._parent: Any = None
        REGISTRY.instruments.append(self)

    def forget(self) -> None:
        self._children, self._parent = {}, None

    def announce(self) -> None:
        for values in self.known:
            self._child(values)

    def add(self, values: tuple[str, ...], buckets: dict[int, list[float]]) -> None:
        """By bucket: how many notes, and their sum."""
        raise NotImplementedError

    def _child(self, values: tuple[str, ...]) -> Any:
        with REGISTRY.lock:
            return self._children.get(values) or self._new_child(values)

    def _new_child(self, values: tuple[str, ...]) -> Any:
        try:
            REGISTRY.reserve()
        except OSError as error:
            # Written without room, a mapped file would end the process (SIGBUS).
            logger.warning("no room for another metric: %s", error.strerror)
            return NOTHING
        if self._parent is None:
            self._parent = self._make()
        child = self._children[values] = self._parent.labels(*values) if values else self._parent
        return child

    def _make(self) -> Any:
        import prometheus_client

        kind: Any = getattr(prometheus_client, self.kind)
        return kind(self.name, self.text, self.labels, registry=REGISTRY.of_process(), **self.options)


class Nothing:
    """Takes what there is no room for."""

    def inc(self, _amount: float = 1) -> None:
        pass

    set = observe = inc


NOTHING: Final = Nothing()


class Counter(Instrument):
    """Its name ends in `_total`."""

    kind = "Counter"
    options: dict[str, Any] = {}  # noqa: RUF012

    def count(self, *values: str, by: float = 1) -> None:
        REGISTRY.note(self, values, -1, by)

    def add(self, values: tuple[str, ...], buckets: dict[int, list[float]]) -> None:
        child = self._children.get(values)
        (child or self._child(values)).inc(buckets[-1][1])


class Gauge(Instrument):
    """`across`: how the values of the living processes of a node become one: `livesum`, `livemax`, `livemin`."""

    kind = "Gauge"

    def __init__(
        self, name: str, text: str, *labels: str, across: str, known: tuple[Iterable[str], ...] = ()
    ) -> None:
        super().__init__(name, text, *labels, known=known)
        self.options = {"multiprocess_mode": across}

    def set(self, number: float, *values: str) -> None:
        child = self._children.get(values)
        (child or self._child(values)).set(number)


class Histogram(Instrument):
    kind = "Histogram"
    options: dict[str, Any] = {"buckets": (*SECONDS, math.inf)}  # noqa: RUF012

    def observe(self, seconds: float, *values: str) -> None:
        REGISTRY.note(self, values, bisect_left(SECONDS, seconds), seconds)

    def add(self, values: tuple[str, ...], buckets: dict[int, list[float]]) -> None:
        """As `observe` of prometheus_client does it for each."""
        child = self._children.get(values) or self._child(values)
        if child is NOTHING:
            return
        for bucket, (count, seconds) in buckets.items():
            child._sum.inc(seconds)  # noqa: SLF001 - there is no other way to add many at once
            child._buckets[bucket].inc(count)  # noqa: SLF001
