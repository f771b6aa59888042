"""Who has the revocation list waits here for the next one (docs/adr/0027-waiting-for-revocations.md).

While anybody waits, one thread looks for all: one round trip to Redis ten times a second, however many wait, and
none when nobody does. What this process itself revokes it hears of at once.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from tokenserver.errors import TokenserverError
from tokenserver.signals import metrics
from tokenserver.tokens.revocation_list import REUSED, Issue, SignedList

logger = logging.getLogger("tokenserver.revocation")

LOOK_SECONDS: Final = 0.1
# Readers that may wait in one process; each holds a thread and a connection.
PLACES: Final = 128


@dataclass(slots=True, eq=False)
class _Reader:
    """`has`: whether it has the list with this ETag. `edition`: the one that it has, once that was looked at."""

    has: Callable[[str], bool]
    edition: int | None = None
    is_turned_away: bool = False
    called: threading.Event = field(default_factory=threading.Event)

    def call(self, *, turned_away: bool = False) -> None:
        if not self.called.is_set():
            self.is_turned_away = turned_away
            self.called.set()


class Watch:
    """One per process. `is_ending`: nobody shall wait any more. `require`: raises TokenserverError where this
    process may decide nothing."""

    def __init__(
        self,
        signed: SignedList,
        *,
        is_ending: Callable[[], bool] = lambda: False,
        require: Callable[[], None] = lambda: None,
        places: int = PLACES,
    ) -> None:
        self.is_ending = is_ending
        self._signed = signed
        self._require = require
        self._places = places
        self._lock = threading.Lock()
        self._readers: set[_Reader] = set()
        self._somebody = threading.Event()
        self._thread: threading.Thread | None = None

    def wait(self, has: Callable[[str], bool], seconds: float) -> bool:
        """Until there is a list that names more than the one that the caller has, or `seconds` are over; at once if
        the caller's isn't the newest.

        False: the caller was turned away, at once or while it waited, since all places are taken, the process ends,
        or what was revoked can't be known.
        """
        reader = _Reader(has)
        with self._lock:
            if len(self._readers) >= self._places or self.is_ending():
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="revocation watch", daemon=True)
                self._thread.start()
            self._readers.add(reader)
            self._count()
        self._somebody.set()
        try:
            reader.called.wait(seconds)
        finally:
            with self._lock:
                self._readers.discard(reader)
                self._count()
        return not reader.is_turned_away

    def _count(self) -> None:
        metrics.list_readers_waiting.set(len(self._readers))

    def _keep(self) -> None:
        while True:
            self._somebody.wait()
            with self._lock:
                readers = tuple(self._readers)
                if not readers:
                    self._somebody.clear()
            if readers:
                self._serve(readers)

    def _serve(self, readers: Collection[_Reader]) -> None:
        # After a new edition the next one is made a second later, however much is revoked meanwhile.
        rest = self._signed.grown_at + REUSED - time.monotonic()
        if self.is_ending():
            _call(readers, turned_away=True)
            time.sleep(LOOK_SECONDS)
        elif rest > 0:
            time.sleep(min(rest, LOOK_SECONDS))
        else:
            self._look(readers)
            self._signed.stirred.wait(LOOK_SECONDS)

    def _look(self, readers: Collection[_Reader]) -> None:
        self._signed.stirred.clear()
        try:
            self._require()
            issue = self._signed.newest()
        except Exception as error:  # the thread goes on, whatever it was
            if not isinstance(error, TokenserverError):
                logger.exception("looking for revocations failed")
            _call(readers, turned_away=True)  # the answer says what is wrong
        else:
            _tell(readers, issue)


def _tell(readers: Collection[_Reader], issue: Issue) -> None:
    for reader in readers:
        if reader.edition is None and reader.has(issue.etag):
            reader.edition = issue.edition
    _call([reader for reader in readers if reader.edition != issue.edition])


def _call(readers: Collection[_Reader], *, turned_away: bool = False) -> None:
    for reader in readers:
        reader.call(turned_away=turned_away)
