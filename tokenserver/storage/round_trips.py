"""Round trips that threads share.

While one is under way, whoever has something to ask waits, and all of them go together with the next. For the store
each command is one by itself, as if it had come alone. Where many requests are answered at a time, most of what a
command costs, on both sides, is its system calls and who wakes up for them.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis

from tokenserver.storage.aside import loop

PROMPT_SECONDS: Final = 0.1


class Trip:
    """Commands that go out together, one for each of the threads behind the gates and of the one that goes."""

    __slots__ = ("commands", "error", "gates", "replies")

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.gates: list[threading.Lock] = []
        self.replies: list[Any] = []
        self.error: BaseException | None = None


class RoundTrips:
    """`exchange` sends packed commands and returns as many replies, in their order; those that refuse too."""

    def __init__(self, exchange: Callable[[Sequence[bytes]], list[Any]]) -> None:
        self._exchange = exchange
        # A loop has others to answer: it doesn't wait for the first connection, nor for a store that took its time.
        self._is_prompt = False
        self._lock = threading.Lock()
        self._under_way = threading.Lock()
        self._next: Trip | None = None
        self._late: Trip | None = None  # the next one of a trip that took all the time there was

    def ask(self, command: bytes) -> Any:
        """The reply. Raises what `exchange` raises, and redis.TimeoutError behind a trip that timed out: who waited
        for it has waited long enough."""
        here = loop()
        if here is not None:
            return here.ask(self, command) if self._is_prompt else here.elsewhere(lambda: self.ask(command))
        with self._lock:
            trip, gate = self._next, None
            if trip is None:
                trip = self._next = Trip()
            else:
                gate = threading.Lock()
                gate.acquire()
                trip.gates.append(gate)
            place = len(trip.commands)
            trip.commands.append(command)
        if gate is None:
            self._go(trip)
        else:
            gate.acquire()
        if trip.error is not None:
            raise trip.error if gate is None else again(trip.error)
        return trip.replies[place]

    def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """A trip by itself."""
        started = time.monotonic()
        try:
            replies = self._exchange(commands)
        except BaseException:
            self._is_prompt = False
            raise
        self._is_prompt = time.monotonic() - started < PROMPT_SECONDS
        return replies

    def _go(self, trip: Trip) -> None:
        with self._under_way:
            with self._lock:
                self._next = None
            try:
                if trip is self._late:
                    raise redis.TimeoutError("Timeout behind another one")
                trip.replies = self.exchange(trip.commands)
            except BaseException as error:  # noqa: BLE001 - each of them raises it
                trip.error = error
                if isinstance(error, redis.TimeoutError) and trip is not self._late:
                    with self._lock:
                        self._late = self._next
        for gate in trip.gates:
            gate.release()


def again(error: BaseException) -> BaseException:
    """For another request: who raises one writes into it. What isn't the store's is nobody's to hide."""
    if not isinstance(error, Exception):  # the thread that went is being ended
        return redis.ConnectionError(f"{type(error).__name__} while talking to Redis")
    if not isinstance(error, redis.RedisError):
        return error
    again = type(error)(*error.args)
    again.__cause__ = error.__cause__ or error.__context__
    return again
