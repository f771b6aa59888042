"""Rate limits: a generic cell rate algorithm in Redis, one script for all buckets of a request."""

import hashlib
import ipaddress
from typing import Final, NamedTuple

from tokenserver.errors import TooManyRequests
from tokenserver.storage.redis import RedisStore

# One script takes from all limits of a request or from none, so they share a bucket.
BUCKET: Final = 0


class Limit(NamedTuple):
    """`burst` at once, then one every `interval_ms`."""

    name: str
    burst: int
    interval_ms: int


class RateLimits:
    def __init__(self, store: RedisStore, *, enabled: bool) -> None:
        self._store = store
        self._enabled = enabled

    def take(self, *subjects: tuple[Limit, str]) -> None:
        """One from each limit, for its subject. Raises TooManyRequests, and then takes nothing."""
        if not self._enabled:
            return
        keys = [_key(limit, subject) for limit, subject in subjects]
        arguments = [number for limit, _ in subjects for number in (limit.interval_ms, limit.burst)]
        # Counters are nowhere else: one that was replaced begins anew, and counts from then on.
        wait = int(self._store.run_script(BUCKET, "take", keys, arguments, verified=False))
        if wait > 0:
            raise TooManyRequests(-(-wait // 1000))

    def give_back(self, *subjects: tuple[Limit, str]) -> None:
        """What succeeded doesn't count."""
        if not self._enabled:
            return
        keys = [_key(limit, subject) for limit, subject in subjects]
        intervals = [limit.interval_ms for limit, _ in subjects]
        self._store.run_script(BUCKET, "give_back", keys, intervals, verified=False)


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
    return f"ts:{{{BUCKET}}}:l:{limit.name}:{hashlib.sha256(subject.encode()).hexdigest()[:24]}"
