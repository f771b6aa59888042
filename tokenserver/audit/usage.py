"""How often what happened: counts by minute and by hour, added up from the event stream, read by /admin/stats."""

import time
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Table, delete, func, select

from tokenserver.audit.events import Event
from tokenserver.audit.models import UsageCount
from tokenserver.storage.bulk import add_rows
from tokenserver.storage.sql import Base, Transaction

MINUTE: Final = 60
HOUR: Final = 3600
# By name in s, and the buckets that each is added up from.
WINDOWS: Final[Mapping[str, tuple[int, int]]] = {
    "1h": (HOUR, MINUTE),
    "24h": (24 * HOUR, HOUR),
    "7d": (7 * 24 * HOUR, HOUR),
    "30d": (30 * 24 * HOUR, HOUR),
}
TABLE: Final[Table] = Base.metadata.tables[UsageCount.__tablename__]
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

    def add(
        self,
        at: int,
        endpoint: str | None,
        event: str,
        outcome: str,
        reason: str | None,
        client_id: str | None,
        details: Mapping[str, Any],
    ) -> None:
        """`at`: unix s."""
        minute, counts = at - at % MINUTE, self._counts
        if outcome == "denied":
            counts[minute, Measure.DENIAL, (endpoint or "")[:255], reason or ""] += 1
            for permission in details.get("permissions", ()):
                counts[minute, Measure.DENIED, permission, ""] += 1
        elif event == Event.ACCESS_ALLOWED:
            for permission in details.get("permissions", ()):
                counts[minute, Measure.ALLOWED, permission, ""] += 1
        elif event == Event.TOKEN_ISSUED:
            counts[minute, Measure.TOKEN, details["grant_type"], client_id or ""] += 1
            if details.get("roles_omitted"):
                counts[minute, Measure.ROLES_OMITTED, client_id or "", ""] += 1

    def save(self, tx: Transaction) -> None:
        added: Counter[tuple[int, int, str, str, str]] = Counter()
        for (minute, measure, subject, qualifier), count in self._counts.items():
            added[MINUTE, minute, measure.value, subject, qualifier] += count
            added[HOUR, minute - minute % HOUR, measure.value, subject, qualifier] += count
        if added:
            # In one order, or two processes that carry at once could each wait for the other.
            add_rows(tx.connection(), TABLE, "count", [(*key, added[key]) for key in sorted(added)])


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
