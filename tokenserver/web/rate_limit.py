"""Rate limits by a generic cell rate algorithm, and the header fields that tell of them.

In Redis, exact over all processes, one script for all buckets of a request; or within this process, for what
protects no secret (docs/adr/0016-rate-limits.md).
"""

import hashlib
import ipaddress
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from flask import Flask, Response

from tokenserver.config import Rate
from tokenserver.errors import TooManyRequests
from tokenserver.signals import metrics
from tokenserver.storage.redis import RedisStore
from tokenserver.web.request_context import RequestContext, current

# One script takes from all limits of a request or from none, so they share a bucket.
BUCKET: Final = 0
# Subjects that a process remembers of one kind of limit; the one that was seen least lately is forgotten first.
REMEMBERED: Final = 10_000


class Limit(NamedTuple):
    """`burst` at once, then one every `interval_ms`. `is_shown`: whether who asks is told its state; not where that
    tells what others do to an account."""

    name: str
    burst: int
    interval_ms: float
    is_shown: bool = True

    @classmethod
    def of(cls, name: str, rate: Rate, *, is_shown: bool = True) -> "Limit":
        return cls(name, rate.quota, rate.window * 1000 / rate.quota, is_shown)


class State(NamedTuple):
    """What is left of a limit. `backlog_ms`: until all of it is there again."""

    limit: Limit
    backlog_ms: float

    @property
    def remaining(self) -> int:
        # A thousandth, because a clock's fractions don't add up exactly.
        left = int(self.limit.burst - self.backlog_ms / self.limit.interval_ms + 0.001)
        return min(self.limit.burst, max(0, left))

    @property
    def next_ms(self) -> float:
        """Until there is one more."""
        return self.next_after(self.remaining)

    def next_after(self, remaining: int) -> float:
        return self.backlog_ms - (self.limit.burst - remaining - 1) * self.limit.interval_ms


class Taken(NamedTuple):
    """`wait` in s; 0: one was taken from each."""

    wait: int
    states: tuple[State, ...]


class RateLimits:
    def __init__(self, store: RedisStore, *, enabled: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._enabled = enabled
        self._local = LocalBuckets(clock)

    # In Redis

    def take(self, *subjects: tuple[Limit, str]) -> None:
        """One from each limit, for its subject. Raises TooManyRequests, and then takes nothing."""
        wait = self.ask(*subjects).wait
        if wait:
            raise TooManyRequests(wait)

    def ask(self, *subjects: tuple[Limit, str]) -> "Taken":
        """Like `take`, for who decides what follows from it. Raises StoreUnavailable."""
        if not self._enabled:
            return Taken(0, ())
        keys = [_key(limit, subject) for limit, subject in subjects]
        arguments = [number for limit, _ in subjects for number in (limit.interval_ms, limit.burst)]
        # Counters are nowhere else: one that was replaced begins anew, and counts from then on.
        wait, *backlogs = self._store.run_script(BUCKET, "take", keys, arguments, verified=False)
        # The script rounds up to whole ms.
        told = (max(0, backlog - 1) for backlog in backlogs)
        states = tuple(State(limit, backlog) for (limit, _), backlog in zip(subjects, told, strict=True))
        _tell(states)
        if wait:
            for state in states:
                if not state.remaining:
                    metrics.rate_limit_refusals.count(state.limit.name)
        return Taken(-(-int(wait) // 1000), states)

    def give_back(self, *subjects: tuple[Limit, str], forget: Sequence[tuple[Limit, str]] = ()) -> None:
        """What succeeded doesn't count. `forget`: those from which all is given back that was ever taken."""
        if not self._enabled:
            return
        keys = [_key(limit, subject) for limit, subject in (*subjects, *forget)]
        intervals: list[float] = [limit.interval_ms for limit, _ in subjects] + [0] * len(forget)
        self._store.run_script(BUCKET, "give_back", keys, intervals, verified=False)
        _take_back(limit for limit, _ in subjects)
        _tell(State(limit, 0) for limit, _ in forget)

    # In this process

    def take_here(self, limit: Limit, subject: str) -> None:
        """Without asking anybody: each process counts for itself. Raises TooManyRequests."""
        if not self._enabled:
            return
        wait_ms, state = self._local.take(limit, subject)
        _tell((state,))
        if wait_ms:
            metrics.rate_limit_refusals.count(limit.name)
            raise TooManyRequests(math.ceil(wait_ms / 1000))


class LocalBuckets:
    """`clock` in s; never set back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._free_at: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()

    def take(self, limit: Limit, subject: str) -> tuple[int, State]:
        """The ms to wait, 0 when it took."""
        # In whole ns: fractions don't add up exactly, and what is a hair over 1,200 s is told as 1,201.
        now = round(self._clock() * 1e9)
        interval = round(limit.interval_ms * 1e6)
        with self._lock:
            buckets = self._free_at.setdefault(limit.name, {})
            free_at = max(buckets.pop(subject, now), now)
            wait = free_at - now - (limit.burst - 1) * interval
            if wait <= 0:
                free_at += interval
            buckets[subject] = free_at  # last: a dict keeps its order
            if len(buckets) > REMEMBERED:
                del buckets[next(iter(buckets))]
        return math.ceil(max(0, wait) / 1e6), State(limit, (free_at - now) / 1e6)


# draft-ietf-httpapi-ratelimit-headers-10


def _tell(states: Iterable[State]) -> None:
    """The answer to this request will name them."""
    quotas = current().quotas
    for state in states:
        if state.limit.is_shown:
            quotas[state.limit.name] = state


def _take_back(limits: Iterable[Limit]) -> None:
    quotas = current().quotas
    for limit in limits:
        state = quotas.get(limit.name)
        if isinstance(state, State):
            quotas[limit.name] = State(limit, max(0, state.backlog_ms - limit.interval_ms))


def fields(context: RequestContext) -> list[tuple[str, str]]:
    """The header fields that tell of the limits that a request met."""
    if not context.quotas:
        return []
    states = [state for state in context.quotas.values() if isinstance(state, State)]
    policies = ", ".join([_policy(state.limit) for state in states])
    return [("RateLimit-Policy", policies), ("RateLimit", ", ".join(map(_state, states)))]


def register(app: Flask) -> None:
    @app.after_request
    def add(response: Response) -> Response:
        response.headers.extend(fields(current()))
        return response


@lru_cache(maxsize=256)
def _policy(limit: Limit) -> str:
    """Section 3: the quota and its window in s."""
    return f'"{limit.name}";q={limit.burst};w={round(limit.burst * limit.interval_ms / 1000)}'


def _state(state: State) -> str:
    """Section 4: what remains, and after how many s there is more; nothing is missing of a quota without `t`."""
    if not state.backlog_ms:
        return f'"{state.limit.name}";r={state.limit.burst}'
    remaining = state.remaining
    return f'"{state.limit.name}";r={remaining};t={max(1, math.ceil(state.next_after(remaining) / 1000))}'


@lru_cache(maxsize=4096)
def network_of(address: str | None) -> str:
    """One subscriber: an IPv4 address, an IPv6 /64 (RFC 6177)."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    mapped = getattr(ip, "ipv4_mapped", None)
    if isinstance(ip, ipaddress.IPv6Address) and mapped is None:
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(mapped or ip)


def _key(limit: Limit, subject: str) -> str:
    # Hashed, so that nothing personal and nothing of any length is a key.
    digest = hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return f"ts:{{{BUCKET}}}:l:{limit.name}:{digest}"
