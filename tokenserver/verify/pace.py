"""When a reader of the revocation list asks next, and whether it waits at the server for news (RFC 7240)."""

import random
from typing import Final

# Seconds that a request waits at most; a list is made so often anyway.
WAIT: Final = 10
# Seconds between two requests at least, however much is revoked.
SPACING: Final = 1.0
# Of the interval: readers that were turned away together don't come back together.
EARLIEST: Final = 0.75
# Looks without waiting after waits that failed one after the other, as behind a proxy without patience: 1, 2, 4, …
MOST_PLAIN: Final = 64


class Pace:
    """`interval`: seconds between two looks where the server doesn't let wait."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._plain = 0
        self._next_plain = 1

    def wait(self, left: float) -> int:
        """How many seconds the next request may wait. `left`: until what is known is too old."""
        return 0 if self._plain else max(0, min(WAIT, int(left / 2)))

    def after(self, *, wait: int, took: float, goes_on: bool, ttl: float) -> float:
        """The pause after an answer that `took` so many seconds. `goes_on`: it says something new, and there is
        reason to wait for more at once. `ttl`: seconds after which a new list is worth asking for."""
        if self._plain and not wait:
            self._plain -= 1
        # The server, or whoever answers for it, waited: by the clock, since a cache may repeat what a header says.
        waited = wait > 0 and took >= wait / 2
        if waited:
            self._next_plain = 1
        if waited or goes_on:
            return max(0.0, min(SPACING, self._interval) - took)
        return self._rest(ttl)

    def after_failure(self, *, wait: int) -> float:
        if wait:
            self._plain, self._next_plain = self._next_plain, min(2 * self._next_plain, MOST_PLAIN)
        return self._rest(self._interval)

    def _rest(self, ttl: float) -> float:
        return min(self._interval, ttl) * random.uniform(EARLIEST, 1)  # noqa: S311 - nobody gains by guessing it
