"""Who writes to an SQLite file comes in the order of asking.

SQLite lets whoever finds the file taken look again, after pauses that grow to 0.1 s, and whoever looks at the right
moment goes first: some wait a second for what takes others a few ms.
"""

import fcntl
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tokenserver.errors import StoreUnavailable

# Files beside the database. Who comes next, of all processes, holds the first, and waits for the second: who gives
# that back and wants it again comes after who waited meanwhile.
NEXT: Final = "-next"
WRITER: Final = "-writer"


class WriteQueue:
    """Of the processes that have a database, and of the threads of this one.

    A lock on a file (flock(2)) is free when its process ends, however it ends. It makes an order, no more: behind
    it is SQLite's own lock.
    """

    def __init__(self, database: Path) -> None:
        self._threads = _Threads()
        self._processes = _Processes([database.with_name(database.name + name) for name in (NEXT, WRITER)])

    @contextmanager
    def turn(self, seconds: float) -> Iterator[None]:
        """Raises StoreUnavailable when it doesn't come within `seconds`."""
        deadline = time.monotonic() + seconds
        if not self._threads.enter(seconds):
            raise _too_many()
        try:
            if not self._processes.enter(deadline - time.monotonic()):
                raise _too_many()
            try:
                yield
            finally:
                self._processes.leave()
        finally:
            self._threads.leave()


def _too_many() -> StoreUnavailable:
    return StoreUnavailable("sql", "another writer takes too long")


class _Threads:
    """One at a time, in the order of coming."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Lock] = deque()

    def enter(self, seconds: float) -> bool:
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return True
            called = threading.Lock()
            called.acquire()
            self._waiting.append(called)
        if called.acquire(timeout=seconds):
            return True
        with self._lock:
            if called in self._waiting:
                self._waiting.remove(called)
                return False
        return True  # called at the last moment

    def leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False


class _Processes:
    """One at a time, as they come. For one thread at a time.

    flock(2) waits in the kernel, and for ever: for a process that stands still too. So one thread waits there, for
    those that give up in time. To look again each ms, as for places to hash in, would cost a third of the writes.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._descriptors: list[int] = []
        weakref.finalize(self, _close, self._descriptors)
        self._state = threading.Lock()
        self._is_wanted = self._is_waiting = False
        self._there = threading.Semaphore(0)
        self._go = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def enter(self, seconds: float) -> bool:
        try:
            return self._try() or self._wait(seconds)
        except (OSError, RuntimeError):
            # A folder that can't be written to, a file system without locks, no thread to be had: no order, then.
            return True

    def leave(self) -> None:
        for descriptor in self._descriptors[1:]:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _try(self) -> bool:
        if self._is_waiting:  # for one who gave up
            return False
        for path in self._paths[len(self._descriptors) :]:
            self._descriptors.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        first, second = self._descriptors
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                fcntl.flock(first, fcntl.LOCK_UN)
        except BlockingIOError:
            return False
        return True

    def _wait(self, seconds: float) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._wait_in_kernel, name="write queue", daemon=True)
            thread.start()
            self._thread = thread
        with self._state:
            self._is_wanted = True
            if not self._is_waiting:
                self._is_waiting = True
                self._go.release()
        if self._there.acquire(timeout=max(0, seconds)):
            return True
        with self._state:
            self._is_wanted = False
        return self._there.acquire(blocking=False)  # at the last moment

    def _wait_in_kernel(self) -> None:
        first, second = self._descriptors
        while True:
            self._go.acquire()
            with suppress(OSError):
                fcntl.flock(first, fcntl.LOCK_EX)
                fcntl.flock(second, fcntl.LOCK_EX)
                fcntl.flock(first, fcntl.LOCK_UN)
            with self._state:
                self._is_waiting = False
                if self._is_wanted:
                    self._is_wanted = False
                    self._there.release()
                else:
                    self.leave()


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
