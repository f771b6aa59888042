"""Threads for password hashes: they take the time that nobody else needs."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

from tokenserver.identity.hash_places import HashPlaces

T = TypeVar("T")

# A tenth of what a request gets where both want the same core.
NICE: Final = 10


class HashThreads:
    """They start when they are first needed, and end when nobody holds this any more. `places`: without one no
    hash is computed."""

    def __init__(self, count: int, places: HashPlaces) -> None:
        self._threads = ThreadPoolExecutor(count, "hash", _step_back)
        self._places = places

    def run(self, work: Callable[..., T], *args: Any) -> T:
        return self._threads.submit(self._in_place, work, *args).result()

    def _in_place(self, work: Callable[..., T], *args: Any) -> T:
        with self._places.one():
            return work(*args)


def _step_back() -> None:
    # On Linux each thread has a priority and cores of its own (sched(7)); elsewhere it would be the whole process.
    if sys.platform != "linux":
        return
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, own + NICE))
    # A worker may be kept to one core, beside which a hash may take any that `serve` may.
    if multiprocessing.parent_process() is not None:
        with suppress(OSError):
            os.sched_setaffinity(0, os.sched_getaffinity(os.getppid()))
