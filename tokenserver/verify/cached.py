"""A value read from the network: read once for all threads, kept while the network is away."""

import logging
import time
from collections.abc import Callable
from threading import Lock, Semaphore
from typing import Final, Generic, TypeVar

from tokenserver.verify.errors import KeysUnavailable

T = TypeVar("T")
log = logging.getLogger(__name__)

# With nothing to go on, every request is refused: look again soon.
EMPTY_RETRY: Final = 1


class Cached(Generic[T]):
    """`load` answers the value and how many seconds it stays fresh, or raises.

    `min_refetch` is in seconds, and so is `empty_retry`, for the time when there is no value yet. `slots`: shared
    with others, so that all of them together keep no more threads than that reading and waiting.
    """

    def __init__(
        self,
        load: Callable[[], tuple[T, float]],
        *,
        min_refetch: float = 30,
        empty_retry: float = EMPTY_RETRY,
        slots: Semaphore | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._min_refetch = min_refetch
        self._empty_retry = empty_retry
        self._slots = slots
        self._clock = clock
        self._value: T | None = None
        self._refresh_at = float("-inf")
        self._retry_at = float("-inf")
        self._lock = Lock()

    def get(self, *, missed: bool = False) -> T:
        """The value, an old one if there is no newer. KeysUnavailable when it could never be read.

        `missed`: the value lacks what the caller looks for, which is worth a new read unless one was made lately.
        """
        if self._is_due(missed=missed):
            self._refresh_within_slots(missed=missed)
        if self._value is None:
            raise KeysUnavailable("nothing could be read yet")
        return self._value

    def _is_due(self, *, missed: bool) -> bool:
        return self._clock() >= (min(self._retry_at, self._refresh_at) if missed else self._refresh_at)

    def _refresh_within_slots(self, *, missed: bool) -> None:
        if self._slots is None:
            self._refresh(missed=missed)
        elif self._slots.acquire(blocking=False):
            try:
                self._refresh(missed=missed)
            finally:
                self._slots.release()

    def _refresh(self, *, missed: bool) -> None:
        # The first read is awaited by everybody; later ones are made by one thread, the others use the old value.
        if not self._lock.acquire(blocking=self._value is None):
            return
        try:
            if self._is_due(missed=missed):
                self._read()
        finally:
            self._lock.release()

    def _read(self) -> None:
        try:
            value, lifetime = self._load()
        except Exception as error:  # noqa: BLE001 - whatever went wrong, what is at hand stays
            log.warning("reading failed, nothing is changed: %a", str(error) or type(error).__name__)
            lifetime = self._empty_retry if self._value is None else self._min_refetch
        else:
            self._value = value
        # Counted from the end of the read: threads that waited for it must not start the next one each in turn.
        now = self._clock()
        self._refresh_at = now + lifetime
        self._retry_at = now + self._min_refetch
