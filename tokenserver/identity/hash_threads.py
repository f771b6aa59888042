"""Threads for password hashes: they take the time that nobody else needs."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

# A tenth of what a request gets where both want the same core.
NICE: Final = 10


def hash_threads(count: int) -> ThreadPoolExecutor:
    """They start when they are first needed, and end when nobody holds the executor any more."""
    return ThreadPoolExecutor(count, "hash", _step_back)


def _step_back() -> None:
    # On Linux each thread has a priority of its own (sched(7)); elsewhere this would be that of the whole process.
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, own + NICE))
