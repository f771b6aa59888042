"""How often what happened: counts by minute and by hour, added up from the event stream, read by /admin/stats."""

import time
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import delete, func, insert, select, update

from tokenserver.audit.events import Event
from tokenserver.audit.models import UsageCount
from tokenserver.storage.sql import Transaction

MINUTE: Final = 60
HOUR: Final = 3600
# By name in s, and the buckets that each is added up from.
WINDOWS: Final[Mapping[str, tuple[int, int]]] = {
    "1h": (HOUR, MINUTE),
    "24h": (24 * HOUR, HOUR),
    "7d": (7 * 24 * HOUR, HOUR),
    "30d": (30 * 24 * HOUR, HOUR),
}
# A bucket is kept until no window reaches it.
KEPT: Final = {MINUTE: 2 * HOUR, HOUR: 31 * 24 * HOUR}


class Measure(StrEnum):
    """`subject`, `qualifier` of each: a permission; a permission; grant_type and client_id; endpoint and reason;
    client_id."""

    ALLOWED = "allowed"
    DENIED = "denied"
    TOKEN = "token"
    DENIAL = "denial"
    ROLES_OMITTED = "roles_omitted"


class Counts:
    """What one batch of events adds."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, Measure, str, str]] = Counter()

    def add(self, at: int, endpoint: str | None, event: Mapping[str, Any]) -> None:
        """`at`: unix s. `event`: its columns."""
        minute = at - at % MINUTE
        details = event["details"]
        if event["outcome"] == "denied":
            self._counts[minute, Measure.DENIAL, (endpoint or "")[:255], event["reason"] or ""] += 1
            for permission in details.get("permissions", ()):
                self._counts[minute, Measure.DENIED, permission, ""] += 1
        elif event["event"] == Event.ACCESS_ALLOWED:
            for permission in details.get("permissions", ()):
                self._counts[minute, Measure.ALLOWED, permission, ""] += 1
        elif event["event"] == Event.TOKEN_ISSUED:
            self._counts[minute, Measure.TOKEN, details["grant_type"], event["client_id"] or ""] += 1
            if details.get("roles_omitted"):
                self._counts[minute, Measure.ROLES_OMITTED, event["client_id"] or "", ""] += 1

    def save(self, tx: Transaction) -> None:
        """The caller holds the lock on the stream's position, so nobody else adds."""
        added: Counter[tuple[int, int, str, str, str]] = Counter()
        for (minute, measure, subject, qualifier), count in self._counts.items():
            added[MINUTE, minute, measure.value, subject, qualifier] += count
            added[HOUR, minute - minute % HOUR, measure.value, subject, qualifier] += count
        for key, count in added.items():
            names = ("seconds", "bucket", "measure", "subject", "qualifier")
            values = dict(zip(names, key, strict=True))
            matches = [getattr(UsageCount, name) == value for name, value in values.items()]
            statement = update(UsageCount).where(*matches).values(count=UsageCount.count + count)
            if not tx.connection().execute(statement).rowcount:
                tx.execute(insert(UsageCount).values(**values, count=count))


def begin_of(window: str, now: float | None = None) -> int:
    """Unix s: where the first bucket of a window begins. It is whole, so the window is up to one bucket longer."""
    seconds, bucket = WINDOWS[window]
    start = int(time.time() if now is None else now) - seconds
    return start - start % bucket


def totals(tx: Transaction, window: str) -> dict[tuple[Measure, str, str], int]:
    _, bucket = WINDOWS[window]
    query = (
        select(UsageCount.measure, UsageCount.subject, UsageCount.qualifier, func.sum(UsageCount.count))
        .where(UsageCount.seconds == bucket, UsageCount.bucket >= begin_of(window))
        .group_by(UsageCount.measure, UsageCount.subject, UsageCount.qualifier)
    )
    return {(Measure(measure), subject, other): int(n) for measure, subject, other, n in tx.execute(query)}


def purge(tx: Transaction) -> None:
    now = int(time.time())
    for seconds, kept in KEPT.items():
        tx.execute(delete(UsageCount).where(UsageCount.seconds == seconds, UsageCount.bucket < now - kept))
