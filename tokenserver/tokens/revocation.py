"""The one cutoff rule: is this token still good?

A token is good if it was issued after the cutoffs of its user and its client, its session and its family have not
ended, and it was not denied by itself. Every entry point asks `Revocation.is_revoked`: this server's own routes,
introspection, refresh.

Cutoffs older than the longest token don't matter any more, so what matters fits in memory.
"""

import threading
from typing import Final
from uuid import UUID

from tokenserver.storage.feed import Entry, Feed, Kind, now_ms

CUTOFFS: Final = frozenset({Kind.USER, Kind.CLIENT, Kind.SESSION, Kind.FAMILY, Kind.TOKEN, Kind.EVERYTHING})
# These subjects never come back, so their end needs no comparison of clocks.
FINAL: Final = frozenset({Kind.SESSION, Kind.FAMILY, Kind.TOKEN})

# By kind and subject, the moment in ms up to which it holds.
Cutoffs = dict[tuple[Kind, str], int]


class Revocation:
    """`is_revoked` answers from memory, as of the last `Feed.sync`."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._lock = threading.Lock()
        self._cutoffs: Cutoffs = {}
        self._version = 0
        self._pruned_at = 0
        feed.subscribe(self._apply, self._reload)

    def is_revoked(
        self,
        *,
        issued_at: int,
        user_id: UUID | str | None = None,
        client_id: str | None = None,
        session_id: UUID | str | None = None,
        family_id: UUID | str | None = None,
        token_id: str | None = None,
    ) -> bool:
        """`issued_at` in ms. What was issued in the very millisecond of a cutoff is revoked."""
        subjects = (
            (Kind.USER, user_id),
            (Kind.CLIENT, client_id),
            (Kind.SESSION, session_id),
            (Kind.FAMILY, family_id),
            (Kind.TOKEN, token_id),
            (Kind.EVERYTHING, ""),
        )
        for kind, subject in subjects:
            if subject is None:
                continue
            cutoff = self._cutoffs.get((kind, str(subject)))
            if cutoff is not None and (kind in FINAL or issued_at <= cutoff):
                return True
        return False

    @property
    def version(self) -> int:
        """Another one after each change."""
        return self._version

    def live(self) -> tuple[int, Cutoffs]:
        """The version, and all cutoffs, also those too old to matter."""
        with self._lock:
            return self._version, self._cutoffs.copy()

    def _apply(self, entry: Entry) -> None:
        if entry.kind not in CUTOFFS:
            return
        with self._lock:
            self._version += 1
            key = (entry.kind, entry.subject)
            self._cutoffs[key] = max(entry.at, self._cutoffs.get(key, 0))
            self._prune()

    def _reload(self, entries: list[Entry]) -> None:
        cutoffs: Cutoffs = {}
        for entry in entries:
            if entry.kind in CUTOFFS:
                key = (entry.kind, entry.subject)
                cutoffs[key] = max(entry.at, cutoffs.get(key, 0))
        with self._lock:
            self._version += 1
            self._cutoffs = cutoffs

    def _prune(self) -> None:
        now = now_ms()
        if now - self._pruned_at > 60_000:
            self._pruned_at = now
            oldest = now - self._feed.retention_ms
            self._cutoffs = {key: at for key, at in self._cutoffs.items() if at > oldest}
