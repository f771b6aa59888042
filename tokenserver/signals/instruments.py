"""Counters, gauges and histograms of prometheus_client, made when they are first used, their children held.

A child is what `labels()` of prometheus_client would look up again each time. Where the value lies in a file that
the processes of a node share (`signals.shared`), adding to it takes some µs, and a request adds to six of them. So
`count` and `observe` only take note, and `Registry.settle` adds up: half a second later, or before somebody reads.
A note is one call that no other thread can come between, of `next` or of a deque's `append`.
"""

import logging
import math
import threading
from bisect import bisect_left
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count, product
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

logger = logging.getLogger("tokenserver.metrics")

# Seconds. From a rotation on a machine of its own to a store that is about to be given up.
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PREFIX: Final = "tokenserver_"
# So many observations with the same labels wait at the most, 32 KB.
MOST_NOTES: Final = 1000


class Registry:
    """All instruments of this process. `reserve`: called before a value is added; OSError when there is no room."""

    def __init__(self) -> None:
        self.instruments: list[Instrument] = []
        self.lock = threading.Lock()
        self._settling = threading.Lock()
        self._begin(lambda: None)

    def _begin(self, reserve: Callable[[], None]) -> None:
        self.reserve = reserve
        self._made: CollectorRegistry | None = None

    def begin(self, reserve: Callable[[], None]) -> None:
        """Anew: with the values of this process, wherever prometheus_client puts them from now on."""
        self._begin(reserve)
        for instrument in self.instruments:
            instrument.forget()
        for instrument in self.instruments:
            instrument.announce()

    def settle(self) -> None:
        """What was noted is in the values when this returns."""
        with self._settling:
            for instrument in self.instruments:
                instrument.settle()

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
        self.forget()
        REGISTRY.instruments.append(self)

    def forget(self) -> None:
        """What was noted, too."""
        self._children: dict[tuple[str, ...], Any] = {}
        self._parent: Any = None

    def announce(self) -> None:
        for values in self.known:
            self._child(values)

    def settle(self) -> None:
        """One thread at a time."""

    def _child(self, values: tuple[str, ...]) -> Any:
        child = self._children.get(values)
        if child is not None:
            return child
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

    def forget(self) -> None:
        super().forget()
        # Who counts, and the number that it gives next if nobody has counted.
        self._ticks: dict[tuple[str, ...], count[int]] = {}
        self._next: dict[tuple[str, ...], int] = {}

    def count(self, *values: str) -> None:
        try:
            next(self._ticks[values])
        except KeyError:
            next(self._ticks.setdefault(values, count()))

    def add(self, amount: float, *values: str) -> None:
        """At once. `amount`: 0 or more."""
        self._child(values).inc(amount)

    def settle(self) -> None:
        for values, ticks in list(self._ticks.items()):
            number = next(ticks)
            if counted := number - self._next.get(values, 0):
                self._child(values).inc(counted)
            self._next[values] = number + 1


class Gauge(Instrument):
    """`across`: how the values of the living processes of a node become one: `livesum`, `livemax`, `livemin`."""

    kind = "Gauge"

    def __init__(
        self, name: str, text: str, *labels: str, across: str, known: tuple[Iterable[str], ...] = ()
    ) -> None:
        super().__init__(name, text, *labels, known=known)
        self.options = {"multiprocess_mode": across}

    def set(self, number: float, *values: str) -> None:
        self._child(values).set(number)


class Histogram(Instrument):
    kind = "Histogram"
    options: dict[str, Any] = {"buckets": (*SECONDS, math.inf)}  # noqa: RUF012

    def forget(self) -> None:
        super().forget()
        self._observed: dict[tuple[str, ...], deque[float]] = {}

    def observe(self, seconds: float, *values: str) -> None:
        try:
            observed = self._observed[values]
        except KeyError:
            observed = self._observed.setdefault(values, deque())
        observed.append(seconds)
        if len(observed) > MOST_NOTES:
            REGISTRY.settle()

    def settle(self) -> None:
        for values, observed in list(self._observed.items()):
            seconds = [observed.popleft() for _ in range(len(observed))]
            if seconds:
                self._add(values, seconds)

    def _add(self, values: tuple[str, ...], seconds: list[float]) -> None:
        """As `observe` of prometheus_client does it for each."""
        child = self._child(values)
        if child is NOTHING:
            return
        child._sum.inc(sum(seconds))  # noqa: SLF001 - there is no other way to add many at once
        buckets = Tally(bisect_left(SECONDS, each) for each in seconds)
        for bucket, number in buckets.items():
            child._buckets[bucket].inc(number)  # noqa: SLF001
